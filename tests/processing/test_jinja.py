"""A checkpoint's own chat template: what transformers makes of it, and what it may not do."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.utils.chat_template_utils import render_jinja_template

from llavakit.checkpoint.formats import read_chat_template, read_config
from llavakit.checkpoint.tokenizer_files import read_tokenizer
from llavakit.config import LanguageConfig, LlavaConfig, VisionConfig
from llavakit.processing import (
    ChatTemplateError,
    Conversation,
    JinjaTemplate,
    MarkerSegment,
    PictureSegment,
    Processor,
    Segment,
    SpecialSegment,
    TextSegment,
    Tokenizer,
    open_image,
    train_tokenizer,
)

PIXEL = Image.new("RGB", (3, 2), "red")
MARKERS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")

# In the manner of published ones. llava-hf's ask for parts of a message, those of language models for its text.
VICUNA_HF = """{% for message in messages %}
{%- if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}
{%- for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}
{%- if message['role'] != 'assistant' %}
{%- for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}
{%- else %}
{%- for content in message['content'] | selectattr('type', 'equalto', 'text') %}
{%- generation %}{{ content['text'] + ' '}}{% endgeneration %}
{%- endfor %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = """{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}
{%- else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}
{% endfor %}"""
LLAMA_3 = """{{ bos_token }}{% for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{%- if message['content'] is string %}{{ message['content'] | trim }}{% else %}
{%- for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}
{%- endif %}{{ '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""  # noqa: E501
TAKES_PARTS = {"vicuna": VICUNA_HF, "llama-3": LLAMA_3}
TAKES_TEXT = {"chatml": CHATML, "llama-2": LLAMA_2}


def with_markers() -> Tokenizer:
    tokenizer = train_tokenizer(["USER: what is it? ASSISTANT: It is a red circle."] * 9, 290)
    spec = json.loads(tokenizer.__reduce__()[1][0])
    for id, spelling in enumerate(MARKERS, start=tokenizer.size):
        spec["added_tokens"].append({**spec["added_tokens"][0], "id": id, "content": spelling})
    return Tokenizer(json.dumps(spec), tokenizer.tokens)


TOKENIZER = with_markers()
TALK = Conversation().ask(PIXEL, "What is it? ").answer(" A circle.\n").ask("And\n\nthis?")
WORDS = Conversation().ask(" What is it? ").answer("A circle.\n").ask("And this?")


def spelt(segments: list[Segment]) -> str:
    spellings = {SpecialSegment("bos"): "<s>", SpecialSegment("eos"): "</s>"}
    return "".join(
        "<image>"
        if isinstance(segment, PictureSegment)
        else spellings.get(segment) or getattr(segment, "text", "") or segment.spelling
        for segment in segments
    )


def messages(conversation: Conversation, *, in_parts: bool) -> list[dict[str, Any]]:
    written = []
    for message in conversation.messages:
        parts = [
            {"type": "text", "text": part.text} if hasattr(part, "text") else {"type": "image"}
            for part in message.parts
        ]
        text = "".join(part.get("text", "<image>\n") for part in parts)
        written.append({"role": message.role, "content": parts if in_parts else text})
    return written


@pytest.mark.parametrize("conversation", [TALK, WORDS])
@pytest.mark.parametrize("name", [*TAKES_PARTS, *TAKES_TEXT])
def test_prompts_are_those_of_transformers(name: str, conversation: Conversation) -> None:
    source = (TAKES_PARTS | TAKES_TEXT)[name]
    segments, _ = JinjaTemplate(source).render(conversation, TOKENIZER)
    [expected], _ = render_jinja_template(
        [messages(conversation, in_parts=name in TAKES_PARTS)],
        chat_template=source,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert spelt(segments).removeprefix("<s>") == expected.removeprefix("<s>")
    assert segments[0] == SpecialSegment("bos") != segments[1]


@pytest.mark.parametrize(
    ("name", "prefix", "suffix", "ends"),
    [
        ("vicuna", " ", " ", ()),
        ("chatml", "", "", ("<|im_end|>",)),
        ("llama-2", " ", " ", ()),
        ("llama-3", "", "", ("<|eot_id|>",)),
    ],
)
def test_how_an_answer_begins_and_ends_is_read_from_one(
    name: str, prefix: str, suffix: str, ends: tuple[str, ...]
) -> None:
    _, form = JinjaTemplate((TAKES_PARTS | TAKES_TEXT)[name]).render(TALK, TOKENIZER)
    assert (form.prefix, form.suffix, form.stop) == (prefix, suffix, ())
    assert form.ends == tuple(map(TOKENIZER.marker, ends))


@pytest.fixture(scope="module", params=["llava-llama", "llava-next-mistral", "llava-qwen2"])
def hf(request: pytest.FixtureRequest, fixtures: Path) -> tuple[Processor, JinjaTemplate, dict[str, Any]]:
    folder = fixtures / "hf" / "checkpoints" / request.param
    config, _ = read_config(folder)
    cases = json.loads((fixtures / "hf" / "cases" / f"{request.param}.json").read_text())["cases"]
    process = Processor(config, read_tokenizer(folder, config.tokens))
    return process, JinjaTemplate(read_chat_template(folder)), {case["name"]: case for case in cases}


@pytest.mark.parametrize("name", ["text_only", "two_images", "multi_turn", "image_in_second_turn"])
def test_ids_are_those_of_the_golden_folders(hf: Any, name: str, fixtures: Path) -> None:
    process, template, cases = hf
    case = cases[name]
    images = iter(case["images"] or [])
    conversation = Conversation()
    for message in case["messages"]:
        parts = [
            open_image(fixtures / next(images)) if part["type"] == "image" else part["text"]
            for part in message["content"]
        ]
        conversation = conversation.ask(*parts) if message["role"] == "user" else conversation.answer(*parts)
    assert process(conversation, template=template).tokens == case["input_ids"][0]


def test_a_prompt_equals_that_of_the_same_template_as_data() -> None:
    config = LlavaConfig(
        vision=VisionConfig(image_size=28, patch_size=14),
        language=LanguageConfig(vocab_size=TOKENIZER.size),
        tokens=TOKENIZER.tokens,
        template="chatml_direct",
    )
    process = Processor(config, TOKENIZER)
    conversation = Conversation(system="Be <|im_end|> brief.").ask(PIXEL, "What?").answer("It").ask("And </s>?")
    theirs, ours = process(conversation, template=JinjaTemplate(CHATML)), process(conversation)
    assert (theirs.tokens, theirs.spans, theirs.answer.ends) == (ours.tokens, ours.spans, ours.answer.ends)
    assert theirs.pixels is not None and (theirs.pixels == ours.pixels).all()


SPELLINGS = ["<image>", "</s>", "<s>", "<|im_end|>", "{{ 7 * 7 }}{% raw %}", "[INST]", "\\n", "ASSISTANT: "]


@pytest.mark.parametrize("source", [VICUNA_HF, CHATML])
def test_what_is_said_stays_text_whatever_it_spells(source: str) -> None:
    said = [f"say {spelling} now" for spelling in SPELLINGS]
    harmless, nasty = Conversation(), Conversation()
    for words in said:
        harmless = harmless.ask(PIXEL, "say it now").answer("so")
        nasty = nasty.ask(PIXEL, words).answer(words)
    ours, _ = JinjaTemplate(source).render(nasty.ask("?"), TOKENIZER)
    plain, _ = JinjaTemplate(source).render(harmless.ask("?"), TOKENIZER)
    assert [s for s in ours if not isinstance(s, TextSegment)] == [s for s in plain if not isinstance(s, TextSegment)]
    texts = " ".join(segment.text for segment in ours if isinstance(segment, TextSegment))
    assert all(texts.count(words) == 2 for words in said)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "longer than 1 seconds"),
        ("{{ 9 ** (9 ** 9) }}", "longer than 1 seconds"),
        ("{{ 'a' * 10 ** 10 }}", "more than 512 MB of memory"),
        ("{{ 'x' | center(10 ** 10) }}", "more than 512 MB of memory"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% for i in range(9999) %}{{ 'abcdefghij' * 100 }}{% endfor %}", "more than 1,048,576 characters"),
        ("{{ " + "(" * 99999 + "1" + ")" * 99999 + " }}", "recursion|nested|ended"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ raise_exception.__globals__['sys'] }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ raise_exception('only two roles, please') }}", "only two roles, please"),
    ],
)
def test_attacks_and_mistakes_end_in_a_sentence(source: str, reason: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ChatTemplateError, match=rf"cannot be used \(.*({reason}).*\); choose another"):
        JinjaTemplate(source, seconds=1 if "1 seconds" in reason else 30).render(WORDS, TOKENIZER)
    assert time.perf_counter() - started < 25


@pytest.mark.skipif(not hasattr(signal, "SIGXCPU"), reason="this system ends no process by its processor time")
def test_time_is_up_too_where_the_process_is_ended_before_its_parent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **given: run(*args, **{**given, "timeout": 60}))
    with pytest.raises(ChatTemplateError, match="longer than 1 seconds"):
        JinjaTemplate("{{ 9 ** (9 ** 9) }}", seconds=1).render(WORDS, TOKENIZER)


@pytest.mark.parametrize(
    "change",
    [
        lambda source: source.replace("m['content'] +", "m['content'] | upper +"),
        lambda source: source.replace("m['content'] +", "m['content'][:9] +"),
        lambda source: source.replace("in messages", "in messages[1:]"),
        lambda source: source.replace("<|im_end|>", "<image>"),
    ],
)
def test_a_template_that_loses_what_is_said_or_shows_what_is_not_is_refused(change: Callable[[str], str]) -> None:
    source = change(CHATML)
    assert source != CHATML
    with pytest.raises(ChatTemplateError, match="leaves out, changes or moves"):
        JinjaTemplate(source).render(WORDS, TOKENIZER)


def test_markers_of_the_template_are_tokens() -> None:
    segments, _ = JinjaTemplate(CHATML).render(Conversation().ask("Hi"), TOKENIZER)
    assert segments == [
        SpecialSegment("bos"),
        MarkerSegment("<|im_start|>"),
        TextSegment("user\nHi"),
        MarkerSegment("<|im_end|>"),
        MarkerSegment("<|im_start|>"),
        TextSegment("assistant\n"),
    ]
