"""What `llava export --to gguf` adds to the files: the chat template, as llama.cpp's server fills it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image

from llavakit.checkpoint.exporting import export_checkpoint
from llavakit.processing import (
    TEMPLATES,
    Conversation,
    MarkerSegment,
    PictureSegment,
    Segment,
    SpecialSegment,
    TextSegment,
    render,
)

PICTURE = Image.new("RGB", (28, 28))
MARKER = "<__media_x7__>"  # in the command line it is <__media__>
TALK = Conversation(system="Be brief.").ask(PICTURE, "What is it?").answer("A cat.").ask("And ", PICTURE, "that?")
SAID: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": f"{MARKER}What is it?"},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": f"And {MARKER}that?"},
]


def spelt(segment: Segment) -> str:
    match segment:
        case TextSegment(text):
            return text
        case MarkerSegment(spelling):
            return spelling
        case PictureSegment():
            return MARKER
        case SpecialSegment(name):
            return {"bos": "<s>", "eos": "</s>"}[name]


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if template.user_text])
def test_the_template_writes_what_we_write(name: str, make: Callable[..., Path], tmp_path: Path) -> None:
    export_checkpoint(make(template=name), tmp_path / "out", to="gguf")
    template = gguf.GGUFReader(tmp_path / "out" / "out-f16.gguf").fields["tokenizer.chat_template"].contents()
    has_system = TEMPLATES[name].system is not None
    talk, said = (TALK, SAID) if has_system else (Conversation(TALK.messages), SAID[1:])
    rules = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    written = rules.from_string(template).render(messages=said, add_generation_prompt=True)
    assert written == "".join(spelt(segment) for segment in render(talk, name))


@pytest.mark.parametrize("precision", ["f16", "q8_0", "q4_0"])
def test_two_files_and_what_differs(precision: str, make: Callable[..., Path], tmp_path: Path) -> None:
    remarks = export_checkpoint(make(), tmp_path / "mine", to="gguf", precision=precision)
    assert ["issue 25814" in remark for remark in remarks] == [True]
    names = sorted(path.name for path in (tmp_path / "mine").glob("[!.]*"))
    assert names == [f"mine-{precision}.gguf", "mmproj-mine-f16.gguf"]
    assert gguf.GGUFReader(tmp_path / "mine" / names[0]).fields["general.name"].contents() == "mine"
