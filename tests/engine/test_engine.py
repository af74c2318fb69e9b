"""The engine against the naive loop, and the laws of what it keeps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from PIL import Image

from llavakit.checkpoint.load import Loaded
from llavakit.engine import engine as engine_module
from llavakit.engine import reference
from llavakit.engine.block_storage import STEP, BlockStorage
from llavakit.engine.blocks import BLOCK
from llavakit.engine.engine import Engine
from llavakit.engine.request import Completion, Event
from llavakit.engine.sampling import SamplingParams
from llavakit.engine.stopping import first_stop
from llavakit.processing.conversation import Conversation
from llavakit.processing.segments import AnswerForm

Draw = Callable[[int], Image.Image]
SHORT = SamplingParams(max_tokens=12)


class Spy:
    """Counts what the model is asked to compute."""

    def __init__(self, loaded: Loaded) -> None:
        self.num_tokens: list[int] = []
        self.num_pictures = 0
        self._hooks = [
            loaded.model.language.register_forward_pre_hook(lambda _, args: self.num_tokens.append(args[0].shape[1])),
            loaded.model.vision.register_forward_pre_hook(self._see),
        ]

    def _see(self, _: object, args: tuple[torch.Tensor]) -> None:
        self.num_pictures += len(args[0])

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


@pytest.fixture
def spy(loaded: Loaded) -> Iterator[Spy]:
    spy = Spy(loaded)
    yield spy
    spy.remove()


def expected_tokens(loaded: Loaded, conversation: Conversation, params: SamplingParams) -> list[int]:
    inputs = loaded.processor(conversation)
    return reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size)


def check_equal(loaded: Loaded, engine: Engine, conversation: Conversation, params: SamplingParams) -> Completion:
    events = list(engine.stream(conversation, params))
    completion = events[-1].completion
    assert completion is not None and not any(event.completion for event in events[:-1])
    assert list(completion.tokens) == expected_tokens(loaded, conversation, params)
    assert "".join(event.text for event in events) == completion.text
    assert completion.text == loaded.tokenizer.detokenize(completion.tokens).removeprefix(" ")
    assert completion.finish_reason == ("stop" if len(completion.tokens) < params.max_tokens else "length")
    return completion


def random_params(chance: random.Random) -> SamplingParams:
    if chance.random() < 0.6:
        return SamplingParams(max_tokens=chance.randint(1, 14))
    return SamplingParams(
        max_tokens=chance.randint(1, 14),
        temperature=chance.choice([0.0, 0.7, 2.0]),
        top_k=chance.choice([0, 5]),
        top_p=chance.choice([1.0, 0.9]),
        min_p=chance.choice([0.0, 0.05]),
        repetition_penalty=chance.choice([1.0, 1.3]),
        seed=chance.randint(0, 99),
    )


def random_question(chance: random.Random, draw: Draw) -> list[str | Image.Image]:
    words = "".join(chance.choices("what is this? <image></s>ü😀 ", k=chance.randint(1, 8)))
    pictures = [draw(chance.randint(0, 3)) for _ in range(chance.choice([0, 0, 1, 1, 2]))]
    parts = [*pictures, words]
    chance.shuffle(parts)
    return parts


def another_state(chance: random.Random, conversation: Conversation, draw: Draw) -> Conversation:
    """What people do next: go on, retry, change an earlier message (so also a picture), or begin anew."""
    messages, question = conversation.messages, random_question(chance, draw)
    match chance.choice(["go on", "go on", "ask again", "retry", "change the first", "begin anew"]):
        case "go on" if messages:
            return conversation.answer("".join(chance.choices("ab é", k=3))).ask(*question)
        case "ask again" if messages:
            return Conversation(messages[:-1]).ask(*question)
        case "retry" if messages:
            return conversation
        case "change the first" if messages:
            return Conversation((*Conversation().ask(*question).messages, *messages[1:]))
    return Conversation(system=chance.choice([None, "", "Be brief."])).ask(*question)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_reference_whatever_was_asked_before(loaded: Loaded, picture: Draw, seed: int) -> None:
    chance, engine, conversation = random.Random(seed), Engine(loaded), Conversation()
    for _ in range(12):
        conversation = another_state(chance, conversation, picture)
        if chance.random() < 0.25:  # somebody stops listening
            stream = engine.stream(conversation, random_params(chance))
            list(islice(stream, chance.randint(0, 5)))
            stream.close()
        completion = check_equal(loaded, engine, conversation, random_params(chance))
        if chance.random() < 0.5:
            conversation = conversation.answer(completion.text).ask("and?")


def test_what_is_kept_changes_no_answer(loaded: Loaded, picture: Draw) -> None:
    kept, conversation = Engine(loaded), Conversation()
    for number in range(4):
        conversation = conversation.ask(picture(number), "what?")
        completion = kept.generate(conversation, SHORT)
        assert completion.tokens == Engine(loaded).generate(conversation, SHORT).tokens
        assert number == 0 or completion.timings.cached_tokens > 0
        conversation = conversation.answer(completion.text)


@contextmanager
def saying(monkeypatch: pytest.MonkeyPatch, loaded: Loaded, text: str) -> Iterator[list[int]]:
    """Whatever the scores, the answer is `text` and the end token; gives its ids."""
    tokens = loaded.tokenizer.tokenize(text, after="text")
    with monkeypatch.context() as patch:
        script = iter([*tokens, loaded.config.tokens.eos])
        patch.setattr(engine_module, "sample", lambda *_: next(script))
        yield tokens


@pytest.mark.parametrize("seed", range(4))
def test_any_end_token_ends_an_answer(loaded: Loaded, picture: Draw, seed: int) -> None:
    """What the model says anyway is made an end: the answer stops in front of it."""
    conversation = Conversation().ask(picture(seed), "what?")
    params = SamplingParams(temperature=1.0, seed=seed, max_tokens=12)
    said = list(Engine(loaded).generate(conversation, params).tokens)
    last = said[-1]
    tokens = loaded.config.tokens.model_copy(update={"also_ends": (299, last)})
    config = loaded.config.model_copy(update={"tokens": tokens})
    model = copy(loaded.model)
    model.config = config
    ending = Loaded(model, loaded.tokenizer, config, "ending")
    answer = Engine(ending).generate(conversation, params)
    assert list(answer.tokens) == said[: said.index(last)] and answer.finish_reason == "stop"
    inputs = ending.processor(conversation)
    assert said[: said.index(last)] == reference.generate(model, inputs, params, tokenizer_size=loaded.tokenizer.size)


def test_a_second_question_costs_only_its_own_tokens(
    loaded: Loaded, picture: Draw, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(loaded)
    first = Conversation().ask(picture(0), "What is it?")
    with saying(monkeypatch, loaded, " A red circle.") as answer:
        one = engine.generate(first)
    assert one.text == "A red circle." and one.finish_reason == "stop" and list(one.tokens) == answer
    assert spy.num_tokens == [len(one.prompt_tokens)] + [1] * len(answer) and spy.num_pictures == 1

    spy.num_tokens.clear()
    with saying(monkeypatch, loaded, " Small."):
        two = engine.generate(first.answer(one.text).ask("How large?"))
    own = [loaded.config.tokens.eos, *loaded.tokenizer.tokenize("USER: How large? ASSISTANT:", after="special")]
    assert list(two.prompt_tokens) == [*one.prompt_tokens, *answer, *own]
    assert spy.num_tokens[0] == len(own) and two.timings.cached_tokens == len(one.prompt_tokens) + len(answer)
    assert spy.num_pictures == 1


def test_each_picture_is_encoded_once_even_if_the_words_before_it_change(
    loaded: Loaded, picture: Draw, spy: Spy
) -> None:
    engine = Engine(loaded)
    for words in ("a", "b", "c"):
        engine.generate(Conversation().ask(words, picture(0), picture(1), words, picture(0)), SHORT)
    assert spy.num_pictures == 2
    engine.generate(Conversation().ask(picture(2), "c"), SHORT)
    assert spy.num_pictures == 3


def test_another_picture_at_the_same_place_is_not_taken_for_the_first(loaded: Loaded, picture: Draw, spy: Spy) -> None:
    engine = Engine(loaded)
    one = check_equal(loaded, engine, Conversation().ask(picture(0), "what?"), SHORT)
    two = check_equal(loaded, engine, Conversation().ask(picture(3), "what?"), SHORT)
    assert one.prompt_tokens == two.prompt_tokens and one.tokens != two.tokens


def test_a_failure_or_interrupt_in_any_layer_leaves_the_engine_usable(loaded: Loaded, picture: Draw) -> None:
    engine, conversation = Engine(loaded), Conversation().ask(picture(0), "what?")
    for layer in (loaded.model.vision, *loaded.model.language.layers, loaded.model.language.norm):
        for num_calls in (0, 1, 4):
            calls = iter(range(100))

            def interrupt(*_: object, calls: Iterator[int] = calls, num_calls: int = num_calls) -> None:
                if next(calls) == num_calls:
                    raise KeyboardInterrupt

            hook = layer.register_forward_hook(interrupt)
            try:
                for _ in engine.stream(conversation.answer("no").ask(picture(1), f"{num_calls}?"), SHORT):
                    pass
            except KeyboardInterrupt:
                pass
            hook.remove()
            check_equal(loaded, engine, conversation, SHORT)


def test_two_open_streams_do_not_disturb_each_other(loaded: Loaded, picture: Draw) -> None:
    engine = Engine(loaded)
    conversations = [Conversation().ask(picture(number), "what?") for number in range(3)]
    engine.generate(conversations[0], SHORT)
    streams = [engine.stream(conversation, SHORT) for conversation in conversations]
    last: dict[int, Event] = {}
    while len(last) < 3:
        for index, stream in enumerate(streams):
            event = next(stream, None)
            if event and event.completion:
                last[index] = event
    for index, conversation in enumerate(conversations):
        completion = last[index].completion
        assert completion and list(completion.tokens) == expected_tokens(loaded, conversation, SHORT)
    check_equal(loaded, engine, conversations[0], SHORT)


def test_no_answer_holds_a_placeholder_or_an_id_beyond_the_tokenizer(loaded: Loaded) -> None:
    vocab_size, conversation, wanted = loaded.config.language.vocab_size, Conversation().ask("tell me"), set[int]()
    forbidden = {loaded.config.tokens.image, *range(loaded.tokenizer.size, vocab_size)}
    for seed in range(4):
        params = SamplingParams(max_tokens=40, temperature=1 + seed, seed=seed)
        assert not forbidden & set(Engine(loaded).generate(conversation, params).tokens)
        inputs = loaded.processor(conversation)
        wanted |= set(reference.generate(loaded.model, inputs, params, tokenizer_size=vocab_size))
    assert forbidden & wanted, "the model does not want the forbidden ids, so this test shows nothing"


@pytest.mark.parametrize(
    ("stops", "cut", "finish_reason"),
    [
        (("red",), "A ", "stop"),
        (("le.",), "A red circ", "stop"),
        (("cir", "A red cub"), "A red ", "stop"),
        (("le. ",), "A red circle.", "stop"),
        (("A",), "", "stop"),
    ],
)
def test_stop_strings_cut_the_answer(
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    stops: tuple[str, ...],
    cut: str,
    finish_reason: str,
) -> None:
    with saying(monkeypatch, loaded, " A red circle.") as tokens:
        *pieces, last = Engine(loaded).stream(Conversation().ask("what?"), SamplingParams(stop=stops))
    assert last.completion is not None
    assert last.completion.text == cut == "".join(event.text for event in [*pieces, last])
    assert last.completion.finish_reason == finish_reason
    assert list(last.completion.tokens) == tokens[: len(last.completion.tokens)]


@pytest.mark.parametrize("seed", range(12))
def test_the_text_with_stop_strings_is_the_text_without_them_cut_there(loaded: Loaded, seed: int) -> None:
    chance, conversation = random.Random(seed), Conversation().ask("tell me")
    params = SamplingParams(max_tokens=40, temperature=1.5, seed=seed)
    full = Engine(loaded).generate(conversation, params).text
    stops = []
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(full))
        stops.append(full[start : start + chance.randint(1, 4)])
    *pieces, last = Engine(loaded).stream(conversation, params.model_copy(update={"stop": tuple(stops)}))
    assert last.completion is not None
    assert last.completion.text == full[: first_stop(full, stops)] == "".join(e.text for e in [*pieces, last])


def test_the_stop_strings_of_the_template_count_too(
    loaded: Loaded, picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    with saying(monkeypatch, loaded, "A caption.\nAnd more"):
        completion = Engine(loaded).generate(Conversation().ask(picture(0)), template="plain")
    assert completion.text == "A caption." and completion.finish_reason == "stop"


def test_a_marker_that_is_a_token_ends_an_answer_by_its_id(chatml: Loaded, picture: Draw) -> None:
    engine, marker = Engine(chatml), chatml.tokenizer.marker("<|im_end|>")
    lengths = []
    for seed in range(12):
        conversation = Conversation().ask(*([picture(0)] if seed % 2 else []), f"tell me {seed}")
        params = SamplingParams(max_tokens=14, temperature=1.0, seed=seed)
        completion = engine.generate(conversation, params)
        inputs = chatml.processor(conversation)
        assert list(completion.tokens) == expected_tokens(chatml, conversation, params)
        assert inputs.answer.ends == (marker,) and marker not in completion.tokens
        assert completion.finish_reason == ("stop" if len(completion.tokens) < 14 else "length")
        # Without the marker among the ends, the naive loop goes on behind it.
        on = reference.generate(
            chatml.model, replace(inputs, answer=AnswerForm()), params, tokenizer_size=chatml.tokenizer.size
        )
        assert tuple(on[: len(completion.tokens)]) == completion.tokens
        if marker in on:
            assert on.index(marker) == len(completion.tokens)
            lengths.append(len(completion.tokens))
    assert len(set(lengths)) > 2, "the marker ended too few answers, so this test shows little"


def test_what_stands_before_the_end_token_is_no_part_of_the_answer(
    loaded: Loaded, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 2 and Mistral learned a space there, which the template writes again."""
    engine, first = Engine(loaded), Conversation().ask("What is it?")
    with saying(monkeypatch, loaded, " A  red circle. ") as answer:
        *pieces, last = engine.stream(first, template="llava_llama_2")
    assert last.completion is not None
    assert last.completion.text == "A  red circle." == "".join(event.text for event in [*pieces, last])
    with saying(monkeypatch, loaded, " Small. "):
        again = engine.generate(first.answer(last.completion.text).ask("How large?"), template="llava_llama_2")
    assert again.timings.cached_tokens == len(last.completion.prompt_tokens) + len(answer)
    cut = SamplingParams(max_tokens=len(answer))
    with saying(monkeypatch, loaded, " A  red circle. "):
        assert engine.generate(first, cut, template="llava_llama_2").text == "A  red circle. ", "it could have gone on"


def test_a_prompt_that_ends_in_a_picture_can_be_asked_again(loaded: Loaded, picture: Draw, spy: Spy) -> None:
    engine, conversation = Engine(loaded), Conversation().ask(picture(0))
    answers = [engine.generate(conversation, SHORT, template="plain") for _ in range(2)]
    assert answers[0].tokens == answers[1].tokens and spy.num_pictures == 1


def test_text_comes_as_soon_as_it_is_certain_and_in_whole_characters(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with saying(monkeypatch, loaded, " é😀") as tokens:
        events = list(Engine(loaded).stream(Conversation().ask("what?"), SamplingParams(stop=("xyz",))))
    assert len(tokens) == 7 and [event.text for event in events] == ["é", "😀", ""]


def test_the_reader_is_not_left_in_inference_mode(loaded: Loaded) -> None:
    for _ in Engine(loaded).stream(Conversation().ask("what?"), SHORT):
        assert not torch.is_inference_mode_enabled()


def test_an_answer_ends_with_the_context(make_loaded: Callable[..., Loaded], picture: Draw) -> None:
    conversation = Conversation().ask(picture(0), "what?")
    length = len(make_loaded().processor(conversation).tokens)
    for room in (1, 2, 3):
        loaded = make_loaded(length + room)
        params = SamplingParams(max_tokens=100, temperature=5, seed=0)
        completion = Engine(loaded).generate(conversation, params)
        assert list(completion.tokens) == expected_tokens(loaded, conversation, params)
        assert len(completion.tokens) == room and completion.finish_reason == "length"


def test_a_prompt_longer_than_the_context_is_told_with_numbers(
    make_loaded: Callable[..., Loaded], picture: Draw
) -> None:
    conversation = Conversation().ask(picture(0), "what?")
    length = len(make_loaded().processor(conversation).tokens)
    engine = Engine(make_loaded(length))
    with pytest.raises(ValueError, match=rf"prompt is {length} tokens long \(4 of them.*holds {length}"):
        engine.stream(conversation)
    assert engine.generate(Conversation().ask("?"), SHORT).tokens


@pytest.mark.parametrize("conversation", [Conversation(), Conversation().ask("hello").answer("hello")])
def test_without_a_question_there_is_no_answer(loaded: Loaded, conversation: Conversation) -> None:
    with pytest.raises(ValueError, match="end with a message of the user"):
        Engine(loaded).stream(conversation)


def test_an_unknown_template_is_named(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="'vicuna_v1'"):
        Engine(loaded).stream(Conversation().ask("what?"), template="vicuna_v2")


@pytest.mark.parametrize(("dtype", "max_tokens"), [(torch.float64, 12), (torch.bfloat16, 1)])
def test_works_in_the_type_of_the_weights(loaded: Loaded, picture: Draw, dtype: torch.dtype, max_tokens: int) -> None:
    other = replace(loaded, model=deepcopy(loaded.model).to(dtype))
    conversation = Conversation().ask(picture(0), "what?")
    check_equal(other, Engine(other), conversation, SamplingParams(max_tokens=max_tokens, repetition_penalty=1.2))


def test_a_long_context_takes_no_memory_before_it_is_used(
    make_loaded: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    capacities: list[int] = []
    make = BlockStorage._room_for

    def recording(self: BlockStorage, num_blocks: int) -> torch.Tensor:
        capacities.append(num_blocks * BLOCK)
        return make(self, num_blocks)

    monkeypatch.setattr(BlockStorage, "_room_for", recording)
    engine = Engine(make_loaded(1_000_000))
    completion = engine.generate(Conversation().ask("what?"), SHORT)
    assert max(capacities) == STEP * BLOCK >= len(completion.prompt_tokens) + len(completion.tokens)
