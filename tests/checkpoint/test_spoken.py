"""The template of a foreign checkpoint, for the language models of the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import read_chat_template, read_config
from llavakit.checkpoint.sections import read_language
from llavakit.checkpoint.spoken import spoken_to

# As published beside llava-hf's checkpoints, cut to what differs.
VICUNA = "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% endfor %}{{ 'ASSISTANT:' }}"
MISTRAL = "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
LLAMA_3 = "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("language", "words", "chat_template", "name"),
    [
        ("llama", 32000, "", "vicuna_v1"),  # original LLaVA-1.5
        ("llama", 32064, VICUNA, "vicuna_v1"),  # llava-hf/llava-1.5-7b-hf
        ("mistral", 32000, "", "mistral_instruct"),  # original 1.6 mistral
        ("mistral", 32064, MISTRAL, "mistral_instruct"),  # llava-hf/llava-v1.6-mistral-7b-hf
        ("mistral", 32064, VICUNA, "vicuna_v1"),  # llava-hf/bakLlava-v1-hf
        ("llama", 64000, "", "chatml_direct"),  # original 1.6-34b
        ("llama", 64064, CHATML, "chatml_direct"),  # llava-hf/llava-v1.6-34b-hf
        ("llama", 128256, "", "llava_llama_3"),  # lmms-lab/llama3-llava-next-8b
        ("llama", 128320, LLAMA_3, "llava_llama_3"),  # llava-hf/llama3-llava-next-8b-hf
        ("qwen2", 152064, "", "qwen_1_5"),  # lmms-lab/llava-next-72b
        ("qwen2", 152064, CHATML, "qwen_1_5"),  # llava-hf/llava-next-72b-hf
        ("llama", 32064, "{{ messages }}", "vicuna_v1"),  # nothing to be seen
    ],
)
def test_every_published_kind(language: str, words: int, chat_template: str, name: str) -> None:
    assert spoken_to(read_language({"model_type": language, "vocab_size": words}), chat_template) == name


HF = {"llava-llama": "vicuna_v1", "llava-next-mistral": "vicuna_v1", "llava-next-qwen2": "qwen_1_5"}


@pytest.mark.parametrize("name", HF)
def test_golden_folders_are_spoken_to_as_their_cases_were(name: str, fixtures: Path) -> None:
    config, _ = read_config(fixtures / "hf" / "checkpoints" / name)
    assert config.template == HF[name]


JINJA, PROCESSOR, TOKENIZER = "chat_template.jinja", "chat_template.json", "tokenizer_config.json"


def put(folder: Path, files: dict[str, Any] | None = None) -> Path:
    """A llava-hf folder's configuration and the files beside it, JSON where they are no text."""
    config = {"config.json": {"model_type": "llava", "text_config": {"model_type": "mistral"}}}
    for name, content in (config | (files or {})).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({JINJA: "A"}, "A"),
        ({PROCESSOR: {"chat_template": "B"}}, "B"),
        ({JINJA: "A", PROCESSOR: {"chat_template": "B"}, TOKENIZER: {"chat_template": "C"}}, "A"),
        ({TOKENIZER: {"chat_template": "C"}}, "C"),
        ({TOKENIZER: {"chat_template": [{"name": "x", "template": "D"}, {"name": "default", "template": "E"}]}}, "E"),
    ],
)
def test_where_a_chat_template_lies(files: dict[str, Any], found: str, tmp_path: Path) -> None:
    assert read_chat_template(put(tmp_path, files)) == found


def test_what_belongs_to_the_tokenizer_alone_does_not_choose(tmp_path: Path) -> None:
    """It came with the language model, before there were pictures."""
    assert read_config(put(tmp_path, {TOKENIZER: {"chat_template": VICUNA}}))[0].template == "mistral_instruct"
    assert read_config(put(tmp_path, {PROCESSOR: {"chat_template": VICUNA}}))[0].template == "vicuna_v1"


@pytest.mark.parametrize("files", [{}, {TOKENIZER: {}}, {PROCESSOR: {"chat_template": [{"name": "tool"}, 3]}}])
def test_a_folder_without_one_is_told(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no chat template of its own .*leave out --template jinja"):
        read_chat_template(put(tmp_path, files))


def test_a_native_folder_has_none_whatever_lies_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a native folder names its template instead"):
        read_chat_template(put(tmp_path, {"config.json": {"format": "llavakit"}, JINJA: "A"}))


def test_a_file_that_is_no_template_is_told(tmp_path: Path) -> None:
    (put(tmp_path) / JINJA).write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template.jinja is not readable as text"):
        read_chat_template(tmp_path)
    (tmp_path / JINJA).write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(CheckpointError, match="and at most 1,048,576 of such a file are read"):
        read_chat_template(tmp_path)
