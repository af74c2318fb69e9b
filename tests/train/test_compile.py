"""Compiled layers: another way to the same weights. In a process of its own, where no shape check wraps the layers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from llavakit.train.config import TrainConfig
from llavakit.train.stages import STAGES


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling layers needs a C++ compiler")
@pytest.mark.parametrize("stage", STAGES)
def test_compiled_layers_learn_the_same(
    stage: str, configure: Callable[..., TrainConfig], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    config, source = configure(stage, optimizer="adamw"), pytestconfig.rootpath / "src"
    plain, compiled = (trained(config, tmp_path / name, source) for name in ("plain", "compiled"))
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def trained(config: TrainConfig, folder: Path, source: Path) -> dict[str, Tensor]:
    """The weights after a run in `folder`, compiled if it is called so."""
    changed = config.model_copy(update={"out": str(folder), "compile": folder.name == "compiled"})
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(changed.model_dump(mode="json")))
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "llavakit", "train", str(recipe)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return load_file(folder / "model" / "model.safetensors")
