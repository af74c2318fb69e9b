"""A model without memory has every tensor of one with memory, and needs no compiler to be made."""

from __future__ import annotations

import subprocess
import sys

from llavakit.config import LlavaConfig
from llavakit.model import Llava
from llavakit.model.empty import empty

CONFIG = {
    "vision": {"image_size": 28, "hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_heads": 2},
    "language": {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "num_heads": 2}
    | {"num_kv_heads": 1, "head_dim": 8},
    "tokens": {"image": 3},
}


def test_shapes_without_memory() -> None:
    config = LlavaConfig.parse(CONFIG)
    with_memory, without = Llava(config).state_dict(), empty(config).state_dict()
    assert [(name, tensor.shape) for name, tensor in without.items()] == [
        (name, tensor.shape) for name, tensor in with_memory.items()
    ]
    assert all(tensor.is_meta for tensor in without.values())


def test_no_compiler_is_loaded() -> None:
    code = (
        "import sys; from llavakit.config import LlavaConfig; from llavakit.model.empty import empty; "
        f"empty(LlavaConfig.parse({CONFIG!r})); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
