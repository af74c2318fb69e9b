"""What is known to be missing, misleading or wrong in configurations people have, as a table of rows.

The code that loads decides what such a configuration means; a row recognises it and tells what was decided.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from llavakit.anyres import num_image_tokens
from llavakit.checkpoint.findings import Finding, Seen, Severity
from llavakit.checkpoint.formats import GENERATION_FILE, IMAGE_FILE, PROCESSOR_FILE
from llavakit.checkpoint.sections import LANGUAGES


@dataclass(frozen=True)
class Known:
    """`when` gives what fills the holes of the sentence, or something empty where the row does not apply."""

    severity: Severity
    when: Callable[[Seen], Any]
    says: str
    do: str = ""
    source: str = ""


def recognised(seen: Seen) -> Iterator[Finding]:
    """The rows that apply. A configuration may be of any shape: what a row cannot read, it does not recognise."""
    for row in KNOWN:
        try:
            found = row.when(seen)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            continue
        if found:
            holes = found if isinstance(found, tuple) else (found,)
            yield Finding(row.severity, row.says.format(*holes), row.do, row.source)


def _lacks(key: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.is_original and key not in seen.config


def _was_tuned(seen: Seen) -> bool:
    tunable = str(seen.config.get("mm_tunable_parts") or "").split(",")
    return bool(seen.config.get("unfreeze_mm_vision_tower")) or "mm_vision_tower" in tunable


def _feature_layer(seen: Seen) -> tuple[int, int] | None:
    """The layer that is read, where it is neither the last but one nor the last of a tower cut off there."""
    vision = seen.contents and seen.contents.config.vision
    unusual = vision and vision.num_layers - vision.num_used_layers not in (0, 1)
    return (vision.num_used_layers, vision.num_layers) if unusual else None


def _far_away_tower(seen: Seen) -> str | None:
    """A tower named by a path of its maker's machine."""
    named = str(seen.config.get("mm_vision_tower") or "")
    is_path = PurePath(named).is_absolute() or PureWindowsPath(named).is_absolute()
    return named if is_path and not Path(named).is_dir() else None


def _mistral_in_disguise(seen: Seen) -> bool:
    shapes = {"num_key_value_heads": 8, "intermediate_size": 14336, "hidden_size": 4096, "vocab_size": 32000}
    says_llama = "LlavaLlamaForCausalLM" in (seen.config.get("architectures") or [])
    return says_llama and all(seen.config.get(key) == value for key, value in shapes.items())


def _text(seen: Seen) -> Mapping[str, Any]:
    return seen.config if seen.is_original else seen.config.get("text_config") or {}


def _left_out(seen: Seen) -> str:
    """Keys of the language model that take the default of their class, and which it is."""
    if seen.contents is None or not (seen.is_hf or seen.is_original):
        return ""
    defaults = LANGUAGES.get(_text(seen).get("model_type", "llama"), LANGUAGES["llama"])
    absent = [key for key, value in defaults.items() if value is not None and key not in _text(seen)]
    return ", ".join(f"{key} {defaults[key]}" for key in absent if not key.endswith("token_id"))


def _short_training(seen: Seen) -> tuple[int, int] | None:
    length = seen.config.get("tokenizer_model_max_length")
    room = seen.contents.config.language.max_positions if seen.contents else 0
    return (length, room) if length and length < room else None


def _clipped(seen: Seen) -> tuple[int, int] | None:
    """Positions given and positions used, where a sliding window makes them fewer."""
    given = _text(seen).get("max_position_embeddings", 0)
    used = seen.contents.config.language.max_positions if seen.contents else given
    return (used, given) if given > used else None


def _crowded(seen: Seen) -> tuple[int, int] | None:
    """Tokens of the largest picture, where more than half of the context goes to it."""
    config = seen.contents.config if seen.contents else None
    if config is None or config.tiling is None:
        return None
    most = max(num_image_tokens(*canvas, config) for canvas in config.tiling.pinpoints)
    return (most, config.language.max_positions) if 2 * most > config.language.max_positions else None


def _other_patches(seen: Seen) -> tuple[int, int] | None:
    given = seen.beside(PROCESSOR_FILE).get("patch_size")
    used = seen.contents.config.vision.patch_size if seen.is_hf and seen.contents else given
    return (given, used) if given and given != used else None


def _other_count(seen: Seen) -> tuple[int, int] | None:
    """Of models that show one view a picture; what the key means for others differs between versions."""
    given = seen.config.get("image_seq_length")
    if not given or not seen.is_hf or seen.contents is None or seen.contents.config.tiling:
        return None
    features = seen.contents.config.vision.num_features
    return (given, features) if given != features else None


def _patched_tokenizer(seen: Seen) -> tuple[str, int, int] | None:
    """A word for pictures where the original's models have none."""
    id, words = seen.beside("added_tokens.json").get("<image>"), seen.config.get("vocab_size", 0)
    return ("<image>", id, words) if seen.is_original and id is not None and id >= words > 0 else None


def _two_ends(seen: Seen) -> tuple[Any, Any] | None:
    here = seen.config.get("eos_token_id", _text(seen).get("eos_token_id"))
    there = seen.beside(GENERATION_FILE).get("eos_token_id")
    ends = there if isinstance(there, list) else [there]
    missing = set(here if isinstance(here, list) else [here]) - set(ends)
    return (here, there) if None not in (here, there) and missing else None


def _two_placeholders(seen: Seen) -> tuple[Any, Any] | None:
    one, other = seen.config.get("image_token_index"), seen.config.get("image_token_id")
    return (one, other) if None not in (one, other) and one != other else None


def _other_numbers(seen: Seen) -> tuple[str, str] | None:
    """The number format a configuration names and the ones the weights have, where they differ."""
    named = str(seen.config.get("torch_dtype") or seen.config.get("dtype")).removeprefix("torch.")
    spelt = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}.get(named)
    types = sorted({tensor.dtype for tensor in seen.stored.values()})
    return (named, ", ".join(types)) if spelt and types and spelt not in types else None


def _misspelt(seen: Seen) -> str:
    """Keys nobody reads that are nearly the name of one that is, and is not there."""
    if not (seen.is_original or seen.is_hf):
        return ""
    read = [*_READ, *LANGUAGES["llama"]]
    close = {key: difflib.get_close_matches(key, read, n=1, cutoff=0.85) for key in seen.config if key not in read}
    return ", ".join(f"{key} (for {near[0]}?)" for key, near in close.items() if near and near[0] not in seen.config)


def _strange(seen: Seen) -> str:
    """Keys in the original's manner that are neither read nor a record of its training."""
    if not seen.is_original:
        return ""
    return ", ".join(key for key in seen.config if key.startswith("mm_") and key not in (*_READ, *_RECORDS))


_READ = (
    "mm_vision_tower", "mm_hidden_size", "mm_projector_type", "mm_vision_select_layer", "mm_vision_select_feature",
    "mm_use_im_start_end", "mm_use_im_patch_token", "mm_patch_merge_type", "image_aspect_ratio", "image_grid_pinpoints",
    "mm_resampler_type", "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "text_config",
    "vision_config", "image_token_index", "image_token_id", "vision_feature_layer", "vision_feature_select_strategy",
    "projector_hidden_act", "multimodal_projector_bias", "unfreeze_mm_vision_tower", "mm_tunable_parts", "s2",
    "max_sequence_length", "vision_aspect_ratio",
)  # fmt: skip
_RECORDS = (
    "mm_projector_lr", "mm_vision_tower_lr", "mm_spatial_pool_stride", "mm_spatial_pool_mode", "mm_newline_position",
    "mm_spatial_pool_out_channels", "mm_resampler_location", "mm_mask_drop_mode",
)  # fmt: skip

# fmt: off
KNOWN: tuple[Known, ...] = (
    # The original's folders.
    Known("unusual", lambda seen: seen.is_original and _was_tuned(seen) and seen.stored and not seen.has_own_tower,
          "the vision tower was trained along with it but is not inside; a published one in its place is another tower",
          "get the whole checkpoint, or give --vision-tower the folder of the tuned tower",
          "haotian-liu/LLaVA #1214"),
    Known("note", lambda seen: seen.is_original and seen.has_own_tower and not _was_tuned(seen),
          "the vision tower is inside, though the configuration does not say that it was trained; it is the one used",
          source="haotian-liu/LLaVA #382, #1694"),
    Known("note", lambda seen: seen.is_original and seen.has_own_tower and seen.parts.vision_tower,
          "the weights of the vision tower inside are used, and of {} only the configuration"),
    Known("unusual", _far_away_tower,
          "mm_vision_tower is {!r}, a place on the machine where it was trained",
          "give --vision-tower, the folder of that tower here", "yuezih/less-is-more #8"),
    Known("unusual", _mistral_in_disguise,
          "it says Llama, but has the shapes of Mistral-7B, as if edited for another program; its template is Vicuna's",
          "ask with --template mistral_instruct", "haotian-liu/LLaVA PR #1115, sgl-project/sglang #128"),
    Known("repaired", _lacks("mm_projector_type"), "mm_projector_type is missing: read as linear, as in v1",
          source="haotian-liu/LLaVA, multimodal_projector/builder.py"),
    Known("repaired", _lacks("image_aspect_ratio"), "image_aspect_ratio is missing: read as square, as in v1",
          source="haotian-liu/LLaVA, mm_utils.py"),
    Known("repaired",
          lambda seen: _lacks("mm_patch_merge_type")(seen) and "anyres" in seen.config["image_aspect_ratio"],
          "mm_patch_merge_type is missing: read as flat, tile behind tile",
          "if it was trained as LLaVA-1.6 was, write spatial_unpad there", "haotian-liu/LLaVA, llava_arch.py"),
    Known("repaired", _lacks("mm_vision_select_layer"),
          "mm_vision_select_layer is missing: read as -1, the original's default; every published LLaVA has -2",
          "if it was trained with -2, write that there", "haotian-liu/LLaVA, train.py"),
    Known("repaired", lambda seen: seen.is_original and isinstance(seen.config.get("image_grid_pinpoints"), str),
          "image_grid_pinpoints is text: read as the list that it spells"),
    Known("repaired", lambda seen: seen.is_original and seen.config.get("model_type") in ("llava", "llama") and
          seen.config["model_type"],
          "model_type is {!r}, which other folders have too: its mm_* keys tell that it is one of the original's",
          source="haotian-liu/LLaVA #15, #1378"),
    Known("unusual", _patched_tokenizer,
          "added_tokens.json gives {} the id {}, behind the model's {:,} words, as another program wanted it",
          "take it out of added_tokens.json", "haotian-liu/LLaVA PR #1115"),
    Known("note", _short_training, "trained on sequences of {:,} tokens; the model has {:,} positions"),
    Known("unusual", _strange, "not known to this program, and not looked at: {}"),
    # llava-hf's folders.
    Known("unusual", lambda seen: seen.is_hf and seen.contents and seen.contents.config.resize_mode == "square",
          "pictures are cropped to a square, for its image settings have no do_pad; LLaVA-1.5 learned on padded ones",
          f'write "do_pad": true into {IMAGE_FILE}', "huggingface/transformers #33175"),
    Known("repaired", lambda seen: seen.is_hf and not (seen.beside(IMAGE_FILE) or seen.beside(PROCESSOR_FILE)),
          f"there is no {IMAGE_FILE}: pictures are prepared as LLaVA was trained"),
    Known("repaired", lambda seen: seen.is_hf and seen.beside(PROCESSOR_FILE) and
          "num_additional_image_tokens" not in seen.beside(PROCESSOR_FILE),
          f"{PROCESSOR_FILE} lacks num_additional_image_tokens, so that other programs count one token too few for a "
          "picture; here they are counted from the model", source="unslothai/unsloth #3783, #2225"),
    Known("repaired", lambda seen: seen.is_hf and not seen.config.get("vision_config") and
          ("SigLIP-so400m/14 at 384" if seen.config["model_type"] == "llava_onevision" else "CLIP-L/14 at 336"),
          "vision_config is missing: read as {} pixels, as its class has it"),
    Known("unusual", _other_patches,
          f"{PROCESSOR_FILE} cuts pictures into patches of {{}}, but the tower's are of {{}}, which counts",
          "other programs miscount the tokens of a picture: correct it"),
    Known("unusual", _other_count, "image_seq_length is {}, but a view has {} features, which is what counts",
          "other programs may miscount the tokens of a picture: correct it"),
    Known("unusual", _two_placeholders, "image_token_index is {}, but image_token_id is {}; the first counts",
          "keep the one that the tokenizer spells <image>"),
    # Either.
    Known("repaired", _left_out, "keys of the language model left out, read as their class has them: {}"),
    Known("unusual", _misspelt, "keys that nothing reads: {}", "correct them if they were meant so"),
    Known("unusual", _feature_layer, "features come from layer {} of {}; every published LLaVA reads the last but one"),
    Known("repaired", _clipped, "the context is one window of sliding attention, {:,} tokens, and not {:,}"),
    Known("note", _crowded, "a large picture takes {:,} of the {:,} tokens of the context",
          source="vllm-project/vllm-ascend #553"),
    Known("unusual", _two_ends, f"config.json ends answers with token {{}}, {GENERATION_FILE} with {{}}, which counts"),
    Known("note", _other_numbers, "the configuration speaks of {}, but the weights are {}"),
)
# fmt: on
