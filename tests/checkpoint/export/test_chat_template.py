"""Every template as Jinja: what it writes is encoded to the ids that our processor makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image
from transformers import PreTrainedTokenizerFast

from llavakit.checkpoint.export.chat_template import Words, chat_template
from llavakit.checkpoint.export.hf import words_of
from llavakit.checkpoint.export.tokenizer import Vocabulary, names_of, write_tokenizer
from llavakit.checkpoint.tokenizer_files import read_tokenizer
from llavakit.config import LlavaConfig, SpecialTokens
from llavakit.processing import TEMPLATES, Conversation, Picture, Processor, Tokenizer, find_template, train_tokenizer

PICTURE = Image.new("RGB", (28, 28))
TALKS = {
    "one question": Conversation().ask(PICTURE, "what is it"),
    "no picture": Conversation().ask("a chat"),
    "several turns": Conversation().ask("a", PICTURE, "b").answer("the one").ask("and").answer("no").ask("why"),
    "picture in a later turn": Conversation().ask("hello").answer("yes").ask(PICTURE, "what is it"),
    "several pictures": Conversation().ask(PICTURE, "one", PICTURE, "two"),
    "own system prompt": Conversation(system="be brief").ask(PICTURE, "what").answer("that").ask("why"),
    "system prompt with a space": Conversation(system=" be brief").ask("what"),
    "no system prompt": Conversation(system="").ask(PICTURE, "what").answer("that").ask("why"),
    "all said": Conversation().ask(PICTURE, "what").answer("that"),
    "nothing answered": Conversation().ask(PICTURE, "what").answer("").ask("why"),
}


@pytest.fixture(scope="module")
def vocabularies(
    sentencepiece_file: Callable[..., bytes],
    llama_pieces: list[tuple[str, float, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Tokenizer]:
    """Of each kind one: bytes, and pieces with a space before every text or before the first alone.

    Of the last, both that SentencePiece makes of a text with a space in front and what the library makes of it.
    """
    made = {"byte-level": train_tokenizer(["a chat USER: ASSISTANT: ### <|im_start|>"], 280)}
    for kind, legacy in (("always", "true"), ("first", "false")):
        folder = tmp_path_factory.mktemp(kind)
        (folder / "tokenizer.model").write_bytes(sentencepiece_file(llama_pieces))
        (folder / "tokenizer_config.json").write_text(f'{{"legacy": {legacy}}}')
        made[kind] = read_tokenizer(folder, SpecialTokens(bos=1, eos=2, pad=0, image=len(llama_pieces)))
        assert made[kind].prefix == kind
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    spec = json.loads(made["first"].source) | {"pre_tokenizer": metaspace, "normalizer": None}
    return made | {"first, sparing": Tokenizer(json.dumps(spec), made["first"].tokens)}


@pytest.fixture(scope="module", params=["byte-level", "always", "first", "first, sparing"])
def encoders(
    request: pytest.FixtureRequest, vocabularies: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Processor, PreTrainedTokenizerFast, Words]:
    """Our processor, and transformers' tokenizer of the same words, where a picture is one word."""
    tokenizer = vocabularies[request.param]
    vocabulary = Vocabulary.of(tokenizer)
    image = vocabulary.placeholder(tokenizer.tokens)
    tokens = tokenizer.tokens.model_copy(update={"image": image})
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.begins_with(None)
    write_tokenizer(folder, vocabulary, names_of(vocabulary, tokens), {})
    config = LlavaConfig.parse(
        {
            "vision": {"image_size": 14, "patch_size": 14, "hidden_size": 8, "num_heads": 2, "num_layers": 2},
            "language": {"vocab_size": max(tokenizer.size, image + 1)},
            "tokens": tokens,
        }
    )
    words = words_of(config, vocabulary, tokenizer)
    assert words.spares_lead == ("sparing" in request.param)
    return Processor(config, tokenizer), PreTrainedTokenizerFast.from_pretrained(folder), words


def possible(name: str) -> Iterator[Conversation]:
    template = TEMPLATES[name]
    for talk in TALKS.values():
        fits = template.max_messages is None or len(talk.messages) <= template.max_messages
        if fits and (template.user_text or talk.pictures) and not (talk.system and template.system is None):
            yield talk


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_is_encoded_as_ours(name: str, encoders: tuple[Processor, PreTrainedTokenizerFast, Words]) -> None:
    processor, encoder, words = encoders
    written = chat_template(find_template(name), words)
    talks = list(possible(name))
    assert len(talks) >= 2
    for talk in talks:
        ours = processor(talk, template=name)
        text = rendered(written, messages(talk), add_generation_prompt=talk.messages[-1].role == "user")
        assert encoder(text, add_special_tokens=False)["input_ids"] == ours.tokens, text
        assert encoder(text)["input_ids"] == ours.tokens  # nothing is put before it a second time


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_may_be_plain_strings(name: str) -> None:
    written = chat_template(find_template(name), Words("<s>", "</s>", "<image>"))
    talk = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "that"}]
    parts = [{"role": said["role"], "content": [{"type": "text", "text": said["content"]}]} for said in talk]
    assert rendered(written, talk) == rendered(written, parts)


@pytest.mark.parametrize("name", TEMPLATES)
def test_servers_see_that_it_takes_parts(name: str) -> None:
    """vLLM looks for a loop over a message's content, and gives a template without one strings alone."""
    written = chat_template(find_template(name), Words("<s>", "</s>", "<image>"))
    loops = ImmutableSandboxedEnvironment().parse(written).find_all(jinja2.nodes.For)
    assert "message['content']" in {
        f"{loop.iter.node.name}[{loop.iter.arg.value!r}]"
        for loop in loops
        if isinstance(loop.iter, jinja2.nodes.Getitem)
    }


def test_a_picture_by_its_address_is_one_too() -> None:
    written = chat_template(find_template("vicuna_v1"), Words("<s>", "</s>", "<image>"))
    for kind in ("image", "image_url"):
        text = rendered(written, [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "what"}]}])
        assert text.endswith("USER: <image>\nwhat")


def test_what_does_not_fit_is_refused_there_too() -> None:
    told = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what"}]
    with pytest.raises(jinja2.TemplateError, match="no place for a system prompt"):
        rendered(chat_template(find_template("gemma_instruct"), Words("<s>", "</s>", "<image>")), told)
    with pytest.raises(jinja2.TemplateError, match="holds 2 messages"):
        rendered(chat_template(find_template("plain"), Words("<s>", "</s>", "<image>")), [told[1]] * 3)


def messages(talk: Conversation) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    for message in talk.messages:
        pictures = [isinstance(part, Picture) for part in message.parts]
        parts = zip(message.parts, pictures, strict=True)
        content = [{"type": "image"} if is_picture else {"type": "text", "text": p.text} for p, is_picture in parts]
        said.append({"role": message.role, "content": content})
    return said if talk.system is None else [{"role": "system", "content": talk.system}, *said]


def rendered(template: str, said: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
    """As transformers and vLLM run a chat template."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template).render(messages=said, add_generation_prompt=add_generation_prompt)
