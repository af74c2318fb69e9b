"""Each row of the table recognises what it is for, and leaves a plain folder alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from llavakit.checkpoint.contents import Parts
from llavakit.checkpoint.doctor import examine
from llavakit.checkpoint.findings import Finding, Seen
from llavakit.checkpoint.known_configs import KNOWN, recognised

ABSENT = object()
CONFIG = "config.json"
HF_PLAIN = "hf/checkpoints/llava-mistral-dopad"
ANYRES = "checkpoints/v16-anyres-vicuna"

# Folder, file, what is changed in it, the severity, and how the row's sentence begins.
CASES: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "no projector type": (ANYRES, CONFIG, {"mm_projector_type": ABSENT}, "repaired", "mm_projector_type is missing"),
    "no aspect ratio": (ANYRES, CONFIG, {"image_aspect_ratio": ABSENT}, "repaired", "image_aspect_ratio is missing"),
    "no merge type": (ANYRES, CONFIG, {"mm_patch_merge_type": ABSENT}, "repaired", "mm_patch_merge_type is missing"),
    "no layer": (ANYRES, CONFIG, {"mm_vision_select_layer": ABSENT}, "repaired", "mm_vision_select_layer is missing"),
    "pinpoints as text": (
        ANYRES, CONFIG, {"image_grid_pinpoints": "[[56, 112], [112, 56]]"}, "repaired", "image_grid_pinpoints is te",
    ),
    "not said to be trained": (
        ANYRES, CONFIG, {"unfreeze_mm_vision_tower": ABSENT}, "note", "the vision tower is inside, though",
    ),
    "a path of its maker": (
        ANYRES, CONFIG, {"mm_vision_tower": "/home/me/clip"}, "unusual", "mm_vision_tower is '/home/me/clip'",
    ),
    "a path under Windows": (
        ANYRES, CONFIG, {"mm_vision_tower": "C:\\clip"}, "unusual", "mm_vision_tower is 'C:",
    ),
    "first folders": (ANYRES, CONFIG, {"model_type": "llama"}, "repaired", "model_type is 'llama'"),
    "short training": (
        ANYRES, CONFIG, {"tokenizer_model_max_length": 2048}, "note", "trained on sequences of 2,048 tokens",
    ),
    "keys nobody knows": (ANYRES, CONFIG, {"mm_flavour": 1}, "unusual", "not known to this program"),
    "misspelt": (
        ANYRES, CONFIG, {"rms_norm_eps": ABSENT, "rms_norm_epps": 1e-5}, "unusual",
        "keys that nothing reads: rms_norm_epps (for rms_norm_eps?)",
    ),
    "left out": (
        ANYRES, CONFIG, {"rms_norm_eps": ABSENT}, "repaired",
        "keys of the language model left out, read as their class has them: rms_norm_eps 1e-06",
    ),
    "an early layer": (ANYRES, CONFIG, {"mm_vision_select_layer": 1}, "unusual", "features come from layer 1"),
    "two ends": (ANYRES, "generation_config.json", {"eos_token_id": 5}, "unusual", "config.json ends answers"),
    "other numbers": (ANYRES, CONFIG, {"torch_dtype": "float16"}, "note", "the configuration speaks of float16"),
    "little room": (
        ANYRES, CONFIG, {"max_position_embeddings": 128}, "note", "a large picture takes 88 of the 128 tokens",
    ),
    "no padding": (HF_PLAIN, "preprocessor_config.json", {"do_pad": ABSENT}, "unusual", "pictures are cropped"),
    "a token too few": (
        HF_PLAIN, "processor_config.json", {"num_additional_image_tokens": ABSENT}, "repaired",
        "processor_config.json lacks num_additional_image_tokens",
    ),
    "other patches": (
        HF_PLAIN, "processor_config.json", {"patch_size": 16}, "unusual", "processor_config.json cuts pictures into",
    ),
    "another count": (HF_PLAIN, CONFIG, {"image_seq_length": 35}, "unusual", "image_seq_length is 35"),
    "two placeholders": (HF_PLAIN, CONFIG, {"image_token_id": 7}, "unusual", "image_token_index is 544, but"),
    "a window": (
        HF_PLAIN, CONFIG, {"text_config.sliding_window": 512}, "repaired", "the context is one window",
    ),
}  # fmt: skip


def sentences(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.says) for finding in findings]


def parts_of(name: str, fixtures: Path) -> Parts:
    return Parts(vision_tower=fixtures / "checkpoints/openai/clip-tiny-patch14-56-c") if name == ANYRES else Parts()


@pytest.mark.parametrize("case", CASES)
def test_it_is_recognised_where_it_is_and_nowhere_else(case: str, fixtures: Path, tmp_path: Path) -> None:
    name, file, changes, severity, begins = CASES[case]
    folder = Path(shutil.copytree(fixtures / name, tmp_path / "changed"))
    content = json.loads((folder / file).read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        at = content
        for parent in parents:
            at = at[parent]
        if value is ABSENT:
            at.pop(last, None)
        else:
            at[last] = value
    (folder / file).write_text(json.dumps(content))

    def told(folder: Path) -> bool:
        findings = examine(folder, parts_of(name, fixtures)).findings
        return any(kind == severity and says.startswith(begins) for kind, says in sentences(findings))

    assert told(folder)
    assert not told(fixtures / name)


def test_a_tower_that_was_trained_but_is_not_inside(fixtures: Path, tmp_path: Path) -> None:
    tensors = {}
    for shard in (fixtures / ANYRES).glob("*.safetensors"):
        tensors |= load_file(shard)
    for file in ("config.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(fixtures / ANYRES / file, tmp_path)
    save_file(
        {name: tensor for name, tensor in tensors.items() if "vision_tower" not in name}, tmp_path / "model.safetensors"
    )
    diagnosis = examine(tmp_path)
    assert any(finding.says.startswith("the vision tower was trained along") for finding in diagnosis.findings)
    assert not any(
        finding.says.startswith("the vision tower was trained along")
        for finding in examine(fixtures / ANYRES, parts_of(ANYRES, fixtures)).findings
    )


def test_a_tokenizer_made_larger_for_another_program(fixtures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fixtures / ANYRES, tmp_path / "patched"))
    (folder / "added_tokens.json").write_text('{"<image>": 544, "<pad>": 545}')
    diagnosis = examine(folder, parts_of(ANYRES, fixtures))
    assert not diagnosis.usable  # for the tokenizer and the model do not belong together any more
    assert "take it out of added_tokens.json" in [finding.do for finding in diagnosis.findings]


def test_a_configuration_edited_for_another_program() -> None:
    config = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "architectures": ["LlavaLlamaForCausalLM"]}
    mistral = {"num_key_value_heads": 8, "intermediate_size": 14336, "hidden_size": 4096, "vocab_size": 32000}
    advice = "ask with --template mistral_instruct"
    assert advice in [finding.do for finding in recognised(Seen(Path("nowhere"), config=config | mistral))]
    llama = config | mistral | {"num_key_value_heads": 32}
    assert advice not in [finding.do for finding in recognised(Seen(Path("nowhere"), config=llama))]


@pytest.mark.parametrize(
    ("there", "is_told"), [(2, False), ([2, 5], False), ([5, 2], False), ([5, 6], True), (5, True)]
)
def test_several_ends_with_the_one_end_among_them_are_no_contradiction(
    there: Any, is_told: bool, tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": there}))
    seen = Seen(tmp_path, config={"model_type": "llava", "text_config": {"eos_token_id": 2}})
    assert any(finding.says.startswith("config.json ends answers") for finding in recognised(seen)) == is_told


@pytest.mark.parametrize(
    ("kind", "tower"), [("llava", "CLIP-L/14 at 336"), ("llava_onevision", "SigLIP-so400m/14 at 384")]
)
def test_the_tower_of_a_class_that_names_none(kind: str, tower: str) -> None:
    seen = Seen(Path("nowhere"), config={"model_type": kind, "text_config": {}})
    assert any(f"read as {tower} pixels" in finding.says for finding in recognised(seen))


@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, [[]], {"a": []}])
def test_no_row_trips_over_a_strange_value(junk: Any) -> None:
    keys = ("mm_vision_tower", "architectures", "image_aspect_ratio", "text_config", "eos_token_id", "torch_dtype")
    for kind in ({"mm_hidden_size": 3}, {"model_type": "llava"}):
        seen = Seen(Path("nowhere"), config=kind | dict.fromkeys(keys, junk))
        assert all(finding.says for finding in recognised(seen))


def test_every_row_says_something_and_the_rows_differ() -> None:
    assert len({row.says for row in KNOWN}) == len(KNOWN)
