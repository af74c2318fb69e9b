"""What a run starts from: the model with its first weights, the data, the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llavakit.checkpoint.load import load, locate
from llavakit.checkpoint.reader import stored_tensors
from llavakit.checkpoint.weights import load_model
from llavakit.data.datasets import RecordDataset
from llavakit.data.records import read_records
from llavakit.kernels import set_num_threads
from llavakit.model import Llava
from llavakit.model.clip import Clip
from llavakit.processing import Processor, Tokenizer
from llavakit.quantize.apply import scheme_of
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.stages import STAGES

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Setup:
    """A model on its device and the data it will see."""

    model: nn.Module
    processor: Processor
    dataset: RecordDataset
    pad: int


def prepare(config: TrainConfig) -> Setup:
    """Build everything `config` names. Raises ValueError with a sentence for whatever is missing or does not fit."""
    device = pick_device(config.device)
    records = read_records(config.data, images=config.images)
    if config.threads:
        set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model, processor = _started(config) if config.start else _anew(config)
    for part, source in config.parts.items():
        _replace_part(model, part, source)
    dataset = STAGES[config.stage].dataset(records, processor, config)
    return Setup(model.to(device), processor, dataset, processor.config.tokens.pad)


def pick_device(wanted: str) -> torch.device:
    """The named device, or for `auto` the best there is; raises `TrainError` for one that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise TrainError(f"device is {wanted!r}; it may be auto, cpu, cuda or mps") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise TrainError(f"device is {wanted!r}, which this machine or this build of PyTorch does not have")
    return device


def _started(config: TrainConfig) -> tuple[nn.Module, Processor]:
    loaded = load(model_folder(config.start), dtype=torch.float32)
    model = loaded.model
    if config.resize_mode is not None:
        model.config = model.config.model_copy(update={"resize_mode": config.resize_mode})
    for part in config.fresh:
        initialize(model.get_submodule(part))
    return model, Processor(model.config, loaded.tokenizer)


def _anew(config: TrainConfig) -> tuple[nn.Module, Processor]:
    changes = {} if config.resize_mode is None else {"resize_mode": config.resize_mode}
    shape = config.model.model_copy(update=changes)
    if not Path(config.tokenizer).is_file():
        raise TrainError(f"tokenizer: there is no file {config.tokenizer}")
    processor = Processor(shape, Tokenizer.load(config.tokenizer, shape.tokens))
    model = Clip(config.clip) if config.stage == "clip" else Llava(shape)
    initialize(model)
    return model, processor


def initialize(model: nn.Module) -> None:
    """First weights: normal with deviation 0.02 for matrices, and as CLIP and LLaVA do for single vectors."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        elif "class_embedding" in name or name == "image_newline":
            nn.init.normal_(parameter, std=len(parameter) ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def model_folder(source: str) -> Path:
    """The trained model of a run folder, or else the folder or catalog name itself."""
    inside = Path(source) / "model"
    if (inside / WEIGHTS).is_file():
        return inside
    if (Path(source) / "config.yaml").is_file():
        raise TrainError(f"the run in {source} is not finished, so it has no model yet; finish it first")
    return locate(source)


def _replace_part(model: nn.Module, part: str, source: str) -> None:
    """Load one part's weights out of a run or model; a tower's last layers, which LLaVA never reads, stay out."""
    try:
        stored = _part_weights(part, model_folder(source))
    except ValueError as error:
        raise TrainError(f"parts.{part}: {error}") from None
    module = model.get_submodule(part)
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    wrong = [name for name, shape in wanted.items() if name not in stored or stored[name].shape != shape]
    if wrong:
        raise TrainError(f"parts.{part}: in {source} it has another shape: {', '.join(wrong[:3])} do not fit")
    module.load_state_dict({name: stored[name] for name in wanted})


def _part_weights(part: str, folder: Path) -> dict[str, Tensor]:
    """A part's tensors out of a whole model of any format, or out of what stage clip leaves: the weights alone."""
    if (folder / "config.json").is_file():
        model = load_model(folder)
        if scheme := scheme_of(model):
            raise ValueError(f"{folder} is quantised ({scheme}), and training needs the model it was made from")
        return model.get_submodule(part).state_dict()
    stored = stored_tensors(folder)
    return {name.removeprefix(f"{part}."): stored[name].read() for name in stored if name.startswith(f"{part}.")}
