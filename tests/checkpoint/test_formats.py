"""Formats are told apart by content, and what is not read yet is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import read_config


def test_native(folder: Path) -> None:
    config, format = read_config(folder)
    assert format == "llavakit"
    assert config.language.num_kv_heads == 1


def test_hugging_face(fixtures: Path) -> None:
    config, format = read_config(fixtures / "hf" / "checkpoints" / "llava-mistral-dopad")
    assert format == "llava-hf"
    assert (config.language.num_kv_heads, config.language.head_dim) == (2, 16)
    assert config.language.rope_theta == 1e6
    assert (config.tokens.bos, config.tokens.eos, config.tokens.pad, config.tokens.image) == (1, 2, 545, 544)
    assert config.resize_mode == "pad"


def test_next(fixtures: Path) -> None:
    config, format = read_config(fixtures / "hf" / "checkpoints" / "llava-next-qwen2")
    assert format == "llava-hf"
    assert config.language.qkv_bias
    assert config.tiling.pinpoints == ((112, 56), (56, 112), (112, 112), (56, 168), (168, 56))
    assert (config.resize_mode, config.tiling.merge, config.tiling.compat) == ("anyres", "spatial_unpad", "hf")


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("checkpoints/vicuna-tiny", "a language model alone .model_type 'llama'., no LLaVA: give it as --base"),
        ("tokenizers/vicuna", "it has no config.json"),
        ("no/such", "there is no folder"),
    ],
)
def test_what_is_not_read_is_refused(folder: str, sentence: str, fixtures: Path) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_config(fixtures / folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("\udcff", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "holds a JSON list where an object is needed"),
        ("{}", "a config.json without format or model_type"),
        ('{"format": "llavakit", "version": 2}', "version 2 of the native format, and this llavakit reads 1"),
        ('{"format": "llavakit"}', "version None of the native format"),
        ('{"format": "llavakit", "version": 1, "resize_mod": "pad"}', "'resize_mod': did you mean 'resize_mode'"),
        ('{"format": "llavakit", "version": 1, "language": {"num_heads": 0}}', "language.num_heads is 0"),
    ],
)
def test_a_configuration_that_cannot_be_used(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=sentence):
        read_config(tmp_path)


def test_names_decide_nothing(folder: Path, tmp_path: Path) -> None:
    renamed = folder.rename(tmp_path / "llava-v1.6-mistral-hf-lora")
    assert read_config(renamed)[1] == "llavakit"


def test_image_settings_may_be_nested(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava", "text_config": {"vocab_size": 32064}}')
    processor = {"image_processor": {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True}}
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    assert read_config(tmp_path)[0].resize_mode == "square"
