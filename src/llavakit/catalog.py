"""The table of known models: a short name for each, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from llavakit.config import nearest


@dataclass(frozen=True)
class Entry:
    """A known model: one in the package has a folder, a published one an id on the Hugging Face hub."""

    about: str
    source: str  # where the weights come from
    folder: str = ""  # inside the package
    hub: str = ""
    format: str = "llavakit"  # expected: llavakit, original or llava-hf
    base: str = ""  # the language model it began from
    tower: str = ""
    licence: str = ""  # that of the language model it began from, where it is known; its own card may say more
    needs_tower: str = ""  # hub ids of what is not in it
    needs_base: str = ""


_LICENCES = {
    "Vicuna-7B v1.5": "Llama 2 Community",
    "Vicuna-13B v1.5": "Llama 2 Community",
    "Llama-2-7B-Chat": "Llama 2 Community",
    "Llama-2-13B-Chat": "Llama 2 Community",
    "Vicuna-7B v1.3": "LLaMA, non-commercial",
    "Vicuna-13B v1.3": "LLaMA, non-commercial",
    "LLaMA-7B": "LLaMA, non-commercial",
    "LLaMA-13B": "LLaMA, non-commercial",
    "Llama-3-8B-Instruct": "Llama 3 Community",
    "Mistral-7B-v0.1": "Apache-2.0",
    "Mistral-7B-Instruct-v0.2": "Apache-2.0",
    "Nous-Hermes-2-Yi-34B": "Apache-2.0",
    "Qwen2-0.5B": "Apache-2.0",
    "Qwen2-7B": "Apache-2.0",
    "Qwen2-72B": "Tongyi Qianwen",
    "Qwen1.5-32B": "Tongyi Qianwen",
    "Qwen1.5-72B": "Tongyi Qianwen",
    "Qwen1.5-110B": "Tongyi Qianwen",
}
_TOWERS = {"CLIP-L/336": "openai/clip-vit-large-patch14-336", "CLIP-L/224": "openai/clip-vit-large-patch14"}
_BASES = {
    "Vicuna-7B v1.5": "lmsys/vicuna-7b-v1.5",
    "Vicuna-13B v1.5": "lmsys/vicuna-13b-v1.5",
    "Vicuna-7B v1.3": "lmsys/vicuna-7b-v1.3",
    "Vicuna-13B v1.3": "lmsys/vicuna-13b-v1.3",
    "Llama-2-7B-Chat": "meta-llama/Llama-2-7b-chat-hf",
    "Llama-2-13B-Chat": "meta-llama/Llama-2-13b-chat-hf",
}  # LLaMA-1, which the deltas are for, was never published there


def _published(hub: str, base: str, tower: str, *, part: str = "") -> Entry:
    """`part` says what the repository holds instead of a whole model."""
    kind = "llava-hf" if hub.startswith("llava-hf/") else "original"
    return Entry(
        ", ".join(filter(None, (base, tower, part))),
        f"https://huggingface.co/{hub}",
        hub=hub,
        format=kind,
        base=base,
        tower=tower,
        licence=_LICENCES.get(base, ""),
        needs_tower=_TOWERS.get(tower, "") if kind == "original" else "",
        needs_base=_BASES.get(base, "") if part else "",
    )


def _by_id(*rows: tuple[str, str, str, str]) -> dict[str, Entry]:
    """Rows that go by the last part of their hub id."""
    return {hub.split("/")[1].lower(): _published(hub, base, tower, part=part) for hub, base, tower, part in rows}


_CLIP = "CLIP-L/336"
_CLIP_224 = "CLIP-L/224"
_TUNED = "CLIP-L/336 tuned"
_SIGLIP = "SigLIP-384"

MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "pocket": Entry(
            folder="pocket",
            about="a small LLaVA for drawn scenes, in the package",
            source="trained by this project: llava train pocket; its card is README.md in the folder",
            licence="Apache-2.0",
        ),
        "llava-1.5-7b": _published("llava-hf/llava-1.5-7b-hf", "Vicuna-7B v1.5", _CLIP),
        "llava-1.5-13b": _published("llava-hf/llava-1.5-13b-hf", "Vicuna-13B v1.5", _CLIP),
        "llava-v1.5-7b": _published("liuhaotian/llava-v1.5-7b", "Vicuna-7B v1.5", _CLIP),
        "llava-v1.5-13b": _published("liuhaotian/llava-v1.5-13b", "Vicuna-13B v1.5", _CLIP),
        "llava-v1.6-vicuna-7b": _published("liuhaotian/llava-v1.6-vicuna-7b", "Vicuna-7B v1.5", _TUNED),
        "llava-v1.6-vicuna-13b": _published("liuhaotian/llava-v1.6-vicuna-13b", "Vicuna-13B v1.5", _TUNED),
        "llava-v1.6-mistral-7b": _published("liuhaotian/llava-v1.6-mistral-7b", "Mistral-7B-Instruct-v0.2", _TUNED),
        "llava-v1.6-34b": _published("liuhaotian/llava-v1.6-34b", "Nous-Hermes-2-Yi-34B", _TUNED),
        "llava-v1.6-vicuna-7b-hf": _published("llava-hf/llava-v1.6-vicuna-7b-hf", "Vicuna-7B v1.5", _TUNED),
        "llava-v1.6-vicuna-13b-hf": _published("llava-hf/llava-v1.6-vicuna-13b-hf", "Vicuna-13B v1.5", _TUNED),
        "llava-v1.6-mistral-7b-hf": _published("llava-hf/llava-v1.6-mistral-7b-hf", "Mistral-7B-Instruct-v0.2", _TUNED),
        "llava-v1.6-34b-hf": _published("llava-hf/llava-v1.6-34b-hf", "Nous-Hermes-2-Yi-34B", _TUNED),
        "llama3-llava-next-8b": _published("lmms-lab/llama3-llava-next-8b", "Llama-3-8B-Instruct", _TUNED),
        "llama3-llava-next-8b-hf": _published("llava-hf/llama3-llava-next-8b-hf", "Llama-3-8B-Instruct", _TUNED),
        "llava-onevision-0.5b-si": _published("lmms-lab/llava-onevision-qwen2-0.5b-si", "Qwen2-0.5B", _SIGLIP),
        "llava-onevision-0.5b-ov": _published("lmms-lab/llava-onevision-qwen2-0.5b-ov", "Qwen2-0.5B", _SIGLIP),
        "llava-onevision-7b-si": _published("lmms-lab/llava-onevision-qwen2-7b-si", "Qwen2-7B", _SIGLIP),
        "llava-onevision-7b-ov": _published("lmms-lab/llava-onevision-qwen2-7b-ov", "Qwen2-7B", _SIGLIP),
        "llava-onevision-72b-si": _published("lmms-lab/llava-onevision-qwen2-72b-si", "Qwen2-72B", _SIGLIP),
        "llava-onevision-72b-ov": _published("lmms-lab/llava-onevision-qwen2-72b-ov", "Qwen2-72B", _SIGLIP),
        "llava-onevision-7b-ov-chat": _published("lmms-lab/llava-onevision-qwen2-7b-ov-chat", "Qwen2-7B", _SIGLIP),
        "llava-onevision-72b-ov-chat": _published("lmms-lab/llava-onevision-qwen2-72b-ov-chat", "Qwen2-72B", _SIGLIP),
        "llava-onevision-0.5b-si-hf": _published("llava-hf/llava-onevision-qwen2-0.5b-si-hf", "Qwen2-0.5B", _SIGLIP),
        "llava-onevision-0.5b-ov-hf": _published("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "Qwen2-0.5B", _SIGLIP),
        "llava-onevision-7b-si-hf": _published("llava-hf/llava-onevision-qwen2-7b-si-hf", "Qwen2-7B", _SIGLIP),
        "llava-onevision-7b-ov-hf": _published("llava-hf/llava-onevision-qwen2-7b-ov-hf", "Qwen2-7B", _SIGLIP),
        "llava-onevision-72b-si-hf": _published("llava-hf/llava-onevision-qwen2-72b-si-hf", "Qwen2-72B", _SIGLIP),
        "llava-onevision-72b-ov-hf": _published("llava-hf/llava-onevision-qwen2-72b-ov-hf", "Qwen2-72B", _SIGLIP),
        "llava-next-72b": _published("lmms-lab/llava-next-72b", "Qwen1.5-72B", _TUNED),
        "llava-next-72b-hf": _published("llava-hf/llava-next-72b-hf", "Qwen1.5-72B", _TUNED),
        "llava-next-110b": _published("lmms-lab/llava-next-110b", "Qwen1.5-110B", _TUNED),
        "llava-next-110b-hf": _published("llava-hf/llava-next-110b-hf", "Qwen1.5-110B", _TUNED),
        "llava-interleave-0.5b": _published("lmms-lab/llava-next-interleave-qwen-0.5b", "Qwen1.5 or Qwen2", _SIGLIP),
        "llava-interleave-7b": _published("lmms-lab/llava-next-interleave-qwen-7b", "Qwen1.5 or Qwen2", _SIGLIP),
        "llava-interleave-0.5b-hf": _published("llava-hf/llava-interleave-qwen-0.5b-hf", "Qwen1.5 or Qwen2", _SIGLIP),
        "llava-interleave-7b-hf": _published("llava-hf/llava-interleave-qwen-7b-hf", "Qwen1.5 or Qwen2", _SIGLIP),
        **_by_id(
            ("liuhaotian/llava-v1.5-7b-lora", "Vicuna-7B v1.5", _CLIP, "LoRA"),
            ("liuhaotian/llava-v1.5-13b-lora", "Vicuna-13B v1.5", _CLIP, "LoRA"),
            ("liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5", "Vicuna-7B v1.5", _CLIP, "projector"),
            ("liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-13b-v1.5", "Vicuna-13B v1.5", _CLIP, "projector"),
            ("liuhaotian/llava-336px-pretrain-vicuna-7b-v1.3", "Vicuna-7B v1.3", _CLIP, "projector"),
            ("liuhaotian/llava-336px-pretrain-vicuna-13b-v1.3", "Vicuna-13B v1.3", _CLIP, "projector"),
            ("liuhaotian/llava-336px-pretrain-llama-2-7b-chat", "Llama-2-7B-Chat", _CLIP, "projector"),
            ("liuhaotian/llava-336px-pretrain-llama-2-13b-chat", "Llama-2-13B-Chat", _CLIP, "projector"),
            ("liuhaotian/llava-pretrain-vicuna-7b-v1.3", "Vicuna-7B v1.3", _CLIP_224, "projector"),
            ("liuhaotian/llava-pretrain-vicuna-13b-v1.3", "Vicuna-13B v1.3", _CLIP_224, "projector"),
            ("liuhaotian/llava-pretrain-llama-2-7b-chat", "Llama-2-7B-Chat", _CLIP_224, "projector"),
            ("liuhaotian/llava-pretrain-llama-2-13b-chat", "Llama-2-13B-Chat", _CLIP_224, "projector"),
            ("liuhaotian/llava-v1-0719-336px-lora-vicuna-13b-v1.3", "Vicuna-13B v1.3", _CLIP, "LoRA"),
            ("liuhaotian/llava-v1-0719-336px-lora-merge-vicuna-13b-v1.3", "Vicuna-13B v1.3", _CLIP, ""),
            ("liuhaotian/llava-llama-2-13b-chat-lightning-preview", "Llama-2-13B-Chat", _CLIP_224, ""),
            ("liuhaotian/llava-llama-2-7b-chat-lightning-lora-preview", "Llama-2-7B-Chat", _CLIP_224, "LoRA"),
            ("liuhaotian/llava-lcs558k-scienceqa-vicuna-13b-v1.3", "Vicuna-13B v1.3", _CLIP_224, ""),
            ("liuhaotian/LLaVA-7b-delta-v0", "LLaMA-7B", _CLIP_224, "delta"),
            ("liuhaotian/LLaVA-13b-delta-v0", "LLaMA-13B", _CLIP_224, "delta"),
            ("liuhaotian/LLaVA-13b-delta-v0-science_qa", "LLaMA-13B", _CLIP_224, "delta"),
            ("liuhaotian/LLaVA-13b-delta-v1-1", "LLaMA-13B", _CLIP_224, "delta"),
            ("liuhaotian/LLaVA-Lightning-7B-delta-v1-1", "LLaMA-7B", _CLIP_224, "delta"),
            ("lmms-lab/llava-next-qwen-32b", "Qwen1.5-32B", _SIGLIP, ""),
            ("llava-hf/bakLlava-v1-hf", "Mistral-7B-v0.1", _CLIP, ""),
            ("SkunkworksAI/BakLLaVA-1", "Mistral-7B-v0.1", _CLIP, ""),
            ("Lin-Chen/open-llava-next-vicuna-7b", "Vicuna-7B v1.5", _TUNED, ""),
            ("Lin-Chen/open-llava-next-llama3-8b", "Llama-3-8B-Instruct", _TUNED, ""),
        ),
    }
)


def entry_of(name_or_id: str) -> Entry | None:
    """The row of a name or a hub id, either with a @revision; None where there is none."""
    name, _, _ = name_or_id.partition("@")
    return MODELS.get(name) or next((entry for entry in MODELS.values() if entry.hub and entry.hub == name), None)


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model, by catalog name or path; a `Path` is never taken for a name.

    As text a name of the table wins: write ./pocket for a folder so called. Raises ValueError for what is neither,
    naming the nearest known model.
    """
    if isinstance(name_or_path, str) and name_or_path in MODELS and MODELS[name_or_path].folder:
        folder = Path(str(files("llavakit"))) / MODELS[name_or_path].folder
        if not folder.is_dir():
            raise ValueError(f"the model {name_or_path} is not part of this installation: there is no folder {folder}")
        return folder
    path = Path(name_or_path)
    if path.is_dir() and name_or_path != "":
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; a model is a folder with a config.json")
    if path.name != str(name_or_path):
        raise ValueError(f"there is no folder {path}")
    raise ValueError(f"{str(name_or_path)!r} is neither a known model nor a folder; {hint(path.name)}")


def hint(name: str) -> str:
    """What to say of a name that is not in the table."""
    return nearest(name, tuple(MODELS), otherwise="llava list shows the known ones")
