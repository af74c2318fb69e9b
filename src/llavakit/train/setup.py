"""What a run starts from: the model with its first weights, the data, the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from llavakit.checkpoint.load import load
from llavakit.checkpoint.reader import stored_tensors
from llavakit.data.records import read_records
from llavakit.model import Llava
from llavakit.model.clip import Clip
from llavakit.processing import Processor, Tokenizer
from llavakit.train.config import TrainConfig
from llavakit.train.stages import STAGES
from llavakit.train.state import TrainError

@dataclass(frozen=True)
class Setup:
    """A model on its device and the data it will see."""

    model: nn.Module
    processor: Processor
    dataset: Dataset
    pad: int


def prepare(config: TrainConfig) -> Setup:
    """Build everything `config` names. Raises ValueError with a sentence for whatever is missing or does not fit."""
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    model, processor = _started(config) if config.start else _fresh(config)
    for part, source in config.parts.items():
        _replace_part(model, part, Path(source))
    records = read_records(config.data)
    dataset = STAGES[config.stage].dataset(records, processor, config)
    return Setup(model.to(pick_device(config.device)), processor, dataset, processor.config.tokens.pad)


def pick_device(wanted: str) -> torch.device:
    """The named device, or for `auto` the best there is."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _started(config: TrainConfig) -> tuple[nn.Module, Processor]:
    if config.model or config.clip or config.tokenizer:
        raise TrainError("with start, the shape and the tokenizer come from there; leave out model, clip and tokenizer")
    loaded = load(config.start, dtype=torch.float32)
    return loaded.model, loaded.processor


def _fresh(config: TrainConfig) -> tuple[nn.Module, Processor]:
    if config.model is None or config.tokenizer is None:
        raise TrainError("a run needs a start to begin from, or a model shape and a tokenizer to begin anew")
    processor = Processor(config.model, Tokenizer.load(config.tokenizer, config.model.tokens))
    if config.stage != "clip":
        model: nn.Module = Llava(config.model)
    elif config.clip is not None:
        model = Clip(config.clip)
    else:
        raise TrainError("stage clip needs the shape of its pair, in clip")
    initialize(model)
    return model, processor


def initialize(model: nn.Module) -> None:
    """First weights: normal with deviation 0.02 for matrices, and as CLIP does for its class and place vectors."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        elif "class_embedding" in name:
            nn.init.normal_(parameter, std=len(parameter) ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def _replace_part(model: nn.Module, part: str, source: Path) -> None:
    """Load one part's weights out of a run or model folder; a tower's last layers, which LLaVA never reads, stay out."""
    folder = next((f for f in (source / "model", source) if (f / "model.safetensors").is_file()), None)
    if folder is None:
        raise TrainError(f"parts.{part}: {source} holds no trained model; run the recipe that makes it first")
    stored = stored_tensors(folder)
    module = model.get_submodule(part)
    missing = [name for name in module.state_dict() if f"{part}.{name}" not in stored]
    if missing:
        raise TrainError(f"parts.{part}: {folder} lacks {', '.join(missing[:3])}; it is of another shape")
    module.load_state_dict({name: stored[f"{part}.{name}"].read() for name in module.state_dict()})
