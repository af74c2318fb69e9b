"""Many requests in one engine: each answer is that of the naive loop, whoever else is there."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from PIL import Image

from llavakit.anyres import Size
from llavakit.checkpoint.load import Loaded
from llavakit.engine import reference
from llavakit.engine.answering import Request
from llavakit.engine.blocks import BLOCK
from llavakit.engine.drafts import Lookup
from llavakit.engine.engine import Engine
from llavakit.engine.runner import Runner, Seen, Span, TorchRunner
from llavakit.engine.sampling import SamplingParams, probabilities, sample_verifying
from llavakit.processing.conversation import Conversation

Draw = Callable[[int], Image.Image]


def finish(engine: Engine, requests: list[Request]) -> None:
    while not engine.is_idle:
        engine.step()
        engine.check_integrity()
    assert all(request.completion for request in requests)


def tokens_of(request: Request) -> list[int]:
    assert request.completion is not None
    events = "".join(event.text for event in request.events)
    assert events == request.completion.text or not request.events
    return list(request.completion.tokens)


def random_conversation(chance: random.Random, draw: Draw) -> Conversation:
    conversation = Conversation(system=chance.choice([None, "Be brief."]))
    for turn in range(chance.choice([1, 1, 2])):
        pictures = [draw(chance.randint(0, 2)) for _ in range(chance.choice([0, 1, 1, 2]))]
        words = chance.choice(["what?", "the same again and again and again", "how many things are in the picture?"])
        conversation = (conversation.answer("it is") if turn else conversation).ask(*pictures, words)
    return conversation


def random_params(chance: random.Random) -> SamplingParams:
    return SamplingParams(
        max_tokens=chance.randint(1, 30),
        temperature=chance.choice([0.0, 0.0, 0.8]),
        top_p=chance.choice([1.0, 0.9]),
        repetition_penalty=chance.choice([1.0, 1.0, 1.3]),
        seed=chance.randint(0, 99),
        draft_tokens=chance.choice([0, 0, 3, 6]),
    )


def expected_tokens(loaded: Loaded, conversation: Conversation, params: SamplingParams) -> list[int]:
    inputs = loaded.processor(conversation)
    return reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_requests_equals_the_reference(loaded: Loaded, picture: Draw, seed: int, together: bool) -> None:
    chance = random.Random(seed)
    engine = Engine(
        loaded,
        runner=TorchRunner(loaded.model, together=together),
        max_sequences=chance.choice([2, 5]),
        token_budget=chance.choice([8, 33, 500]),
        cache_tokens=chance.choice([400, 1500]),
    )
    asked: list[tuple[Request, Conversation, SamplingParams]] = []
    for _ in range(14):
        conversation, params = random_conversation(chance, picture), random_params(chance)
        request = engine.submit(conversation, params, tenant=chance.choice(["", "b"]))
        asked.append((request, conversation, params))
        for _ in range(chance.choice([0, 0, 3, 12])):
            engine.step()
            engine.check_integrity()
        if chance.random() < 0.25:
            gone = asked.pop(chance.randrange(len(asked)))[0]
            engine.abort(gone)
            engine.check_integrity()
            engine.abort(gone)
    finish(engine, [request for request, _, _ in asked])
    for request, conversation, params in asked:
        assert tokens_of(request) == expected_tokens(loaded, conversation, params)


def test_neighbours_change_no_bit_of_the_scores(loaded: Loaded, picture: Draw) -> None:
    params = SamplingParams(max_tokens=10, logprobs=3)
    conversations = [Conversation().ask(picture(number), f"{number}?") for number in range(5)]
    crowd = Engine(loaded, cache_tokens=2000)
    requests = [crowd.submit(conversation, params, tenant=str(i)) for i, conversation in enumerate(conversations)]
    finish(crowd, requests)
    for request, conversation in zip(requests, conversations, strict=True):
        assert request.completion is not None
        assert request.completion.logprobs == Engine(loaded).generate(conversation, params).logprobs


def test_logprobs_are_those_of_the_naive_model(loaded: Loaded, picture: Draw) -> None:
    conversation = Conversation().ask(picture(0), "what?")
    params = SamplingParams(max_tokens=8, logprobs=4, temperature=1.0, seed=3, top_p=0.9, draft_tokens=3)
    completion = Engine(loaded).generate(conversation, params)
    assert completion.logprobs is not None and len(completion.logprobs) == len(completion.tokens)
    inputs, runner = loaded.processor(conversation), TorchRunner(loaded.model)
    assert inputs.pixels is not None
    embeds = runner.encode(inputs.pixels, inputs.sizes[0]).embeds
    tokens = torch.tensor([[*inputs.tokens, *completion.tokens]])
    placeholders = tokens == loaded.config.tokens.image
    states = loaded.model.language.embed(tokens).masked_scatter(placeholders[..., None], embeds)
    hidden = loaded.model.language(states, torch.arange(tokens.shape[1])[None])[0, len(inputs.tokens) - 1 : -1]
    scores = loaded.model.language.logits(hidden)
    scores[:, [loaded.config.tokens.image, *range(loaded.tokenizer.size, scores.shape[1])]] = -torch.inf
    for row, said in zip(scores.double().log_softmax(-1), completion.logprobs, strict=True):
        assert said.logprob == pytest.approx(float(row[said.token]), abs=1e-4)
        assert [value for _, value in said.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
    assert Engine(loaded).generate(conversation, SamplingParams(max_tokens=2)).logprobs is None


def test_an_aborted_request_gives_its_room_to_who_waits(loaded: Loaded) -> None:
    engine = Engine(loaded, cache_tokens=160)
    first, second = (engine.submit(Conversation().ask("what?"), SamplingParams(max_tokens=60)) for _ in range(2))
    engine.step()
    assert first.events or first.sequence.num_computed and not second.sequence.num_computed
    engine.abort(first)
    engine.step()
    assert second.sequence.num_computed and first.completion is None
    engine.abort(second)
    assert engine.is_idle and engine.step() == []
    engine.check_integrity()


def test_what_can_never_fit_is_refused_with_numbers(loaded: Loaded) -> None:
    engine = Engine(loaded, cache_tokens=80)
    with pytest.raises(ValueError, match="answer may have up to 100, but this engine has room for 81 in all"):
        engine.submit(Conversation().ask("what?"), SamplingParams(max_tokens=100))
    with pytest.raises(ValueError, match="cache_tokens"):
        engine.stream(Conversation().ask("what?"), SamplingParams(max_tokens=100))
    assert engine.is_idle


def test_a_tenant_finds_nothing_of_another(loaded: Loaded, picture: Draw) -> None:
    engine, conversation = Engine(loaded, cache_tokens=2000), Conversation().ask(picture(0), "what?")
    cached = []
    for tenant in ("a", "b", "a"):
        request = engine.submit(conversation, SamplingParams(max_tokens=3), tenant=tenant)
        finish(engine, [request])
        assert request.completion is not None
        cached.append(request.completion.timings.cached_tokens)
    assert cached[:2] == [0, 0] and cached[2] > 0


class Sick:
    """A runner that cannot see one picture, nor compute one token; where it `pretends` the scores are no numbers."""

    def __init__(self, runner: Runner, pixels: torch.Tensor, token: int, *, pretends: bool) -> None:
        self._runner, self._pixels, self._token, self._pretends = runner, pixels, token, pretends
        self.copy = runner.copy

    def encode(self, pixels: torch.Tensor, size: Size) -> Seen:
        if torch.equal(pixels, self._pixels):
            raise OSError("the picture is gone")
        return self._runner.encode(pixels, size)

    def step(self, spans: Sequence[Span]) -> list[torch.Tensor]:
        is_sick = [self._token in span.tokens for span in spans]
        if any(is_sick) and not self._pretends:
            raise RuntimeError("out of memory")
        found = self._runner.step(spans)
        return [logits * torch.nan if sick else logits for logits, sick in zip(found, is_sick, strict=True)]


@pytest.mark.parametrize("pretends", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_goes_wrong_in_one_request_ends_it_alone(
    loaded: Loaded, picture: Draw, pretends: bool, temperature: float
) -> None:
    params = SamplingParams(max_tokens=10, temperature=temperature, seed=1)
    asked = [Conversation().ask(picture(number), "what?") for number in range(3)] + [Conversation().ask("what ever;")]
    expected = [expected_tokens(loaded, conversation, params) for conversation in asked]
    others = {*loaded.processor(asked[0]).tokens, *itertools.chain(*expected)}
    token = min({*loaded.processor(asked[3]).tokens} - others)
    pixels = loaded.processor(asked[1]).pixels
    assert pixels is not None
    sick = Sick(TorchRunner(loaded.model), pixels, token, pretends=pretends)
    engine = Engine(loaded, runner=sick, cache_tokens=2000)
    requests = [engine.submit(conversation, params) for conversation in asked]
    ended: list[Request] = []
    while not engine.is_idle:
        ended += [request for request in engine.step() if request.error is not None]
        engine.check_integrity()
    assert tokens_of(requests[0]) == expected[0] and tokens_of(requests[2]) == expected[2]
    assert {*ended} == {requests[1], requests[3]} and all(r.is_over and r.completion is None for r in ended)
    assert isinstance(requests[1].error, OSError)
    assert isinstance(requests[3].error, ValueError if pretends else RuntimeError)
    with pytest.raises(OSError, match="the picture is gone"):
        engine.generate(asked[1], params)
    with pytest.raises(ValueError if pretends else RuntimeError, match="are not numbers" if pretends else "memory"):
        list(engine.stream(asked[3], params))
    assert list(engine.generate(asked[0], params).tokens) == expected[0]
    engine.check_integrity()


@pytest.mark.parametrize("where", ["_picture", "_draw", "_finish", "_span"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_others_their_answers(
    loaded: Loaded, picture: Draw, monkeypatch: pytest.MonkeyPatch, where: str, error: type[BaseException]
) -> None:
    """Of `step`, whoever interrupts it wherever: the request in hand may be lost, no other, and no block."""
    params, lost = SamplingParams(max_tokens=8), 0
    asked = [Conversation().ask(picture(number), "what?") for number in range(3)]
    engine = Engine(loaded, cache_tokens=2000)
    for number in range(6):
        requests, calls, whole = [engine.submit(one, params) for one in asked], iter(range(99)), getattr(Engine, where)

        def broken(*given: Any, calls: Iterator[int] = calls, number: int = number, whole: Any = whole) -> Any:
            if next(calls) == number:
                raise error
            return whole(*given)

        while not engine.is_idle:
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(Engine, where, staticmethod(broken) if where == "_draw" else broken)
                engine.step()
            engine.check_integrity()
        lost += sum(isinstance(request.error, error) for request in requests)
        for request, conversation in zip(requests, asked, strict=True):
            if request.error is None:
                assert tokens_of(request) == expected_tokens(loaded, conversation, params)
    assert 1 <= lost <= 6


def test_a_row_of_a_batch_reads_nothing_of_another_that_is_no_number(loaded: Loaded) -> None:
    """Rows are padded with slots that somebody may have written no numbers into."""
    runner = TorchRunner(loaded.model, together=True)
    long, short = Span(list(range(5, 15)), 0, [0]), Span([7, 8], 0, [1])
    after = Span([5], 10, [0])
    runner.step([long, short])
    wanted = runner.step([after, short])[1]
    with torch.inference_mode():
        runner._storage.values[:, :, :BLOCK] = torch.nan
    assert torch.equal(runner.step([after, short])[1], wanted)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_right_drafts_save_steps_and_wrong_ones_change_nothing(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Somebody who knows the answer guesses, and errs now and then."""
    saved = 0
    for number in range(8):
        chance, conversation = random.Random(number), Conversation().ask(f"tell me {number}")
        prompt = loaded.processor(conversation).tokens
        params = SamplingParams(max_tokens=40, temperature=temperature, seed=number)
        plain = Engine(loaded).generate(conversation, params)

        def guess(
            self: Lookup,
            most: int,
            *,
            known: tuple[int, ...] = plain.tokens,
            chance: random.Random = chance,
            start: int = len(prompt),
        ) -> list[int]:
            right = known[len(self._tokens) - start :][:most]
            return [token if chance.random() < 0.8 else 5 for token in right]

        with monkeypatch.context() as patch:
            patch.setattr(Lookup, "guess", guess)
            drafted = Engine(loaded).generate(conversation, params.model_copy(update={"draft_tokens": 4}))
        assert drafted.tokens == plain.tokens and drafted.text == plain.text
        assert plain.timings.tokens_per_step == 1
        num_drawn = len(plain.tokens) + (plain.finish_reason == "stop")
        assert drafted.timings.steps + drafted.timings.accepted_drafts == num_drawn
        saved += num_drawn - drafted.timings.steps
    assert saved > 20


def test_drafts_behind_the_end_are_not_counted(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is guessed is right, but the answer ends in the middle of it."""
    conversation, params = Conversation().ask("tell me 7"), SamplingParams(max_tokens=40)
    prompt, whole = loaded.processor(conversation).tokens, Engine(loaded).generate(conversation, params)

    def guess(self: Lookup, most: int) -> list[int]:
        return list(whole.tokens[len(self._tokens) - len(prompt) :][:most])

    monkeypatch.setattr(Lookup, "guess", guess)
    ends = [place for place, token in enumerate(whole.tokens) if whole.tokens.index(token) == place]
    assert len(ends) > 8
    for place in ends:
        engine = Engine(loaded)
        engine._ends |= {whole.tokens[place]}
        cut = engine.generate(conversation, params.model_copy(update={"draft_tokens": 6}))
        assert cut.tokens == whole.tokens[:place]
        assert cut.timings.steps + cut.timings.accepted_drafts == place + 1


def test_the_distribution_of_an_answer_is_the_same_with_drafts() -> None:
    """All answers of three tokens over a vocabulary of three, counted, against their exact probabilities."""
    chance = torch.Generator().manual_seed(0)
    scores = {
        past: torch.randn(3, generator=chance) for n in range(3) for past in itertools.product(range(3), repeat=n)
    }
    params, number = SamplingParams(temperature=0.8, top_k=2, seed=1), 4000
    exact = {
        answer: float(
            torch.stack([probabilities(scores[answer[:n]], params, answer[:n])[answer[n]] for n in range(3)]).prod()
        )
        for answer in itertools.product(range(3), repeat=3)
    }
    for drafts in ((0, 1), (2, 2), (1, 0)):
        generator, counts = params.generator(), dict.fromkeys(exact, 0)
        for _ in range(number):
            tokens = list[int]()
            while len(tokens) < 3:  # each step verifies what is left of the drafts
                left = drafts[len(tokens) :]
                rows = torch.stack([scores[(*tokens, *left[:n])] for n in range(len(left) + 1)])
                tokens += sample_verifying(rows, left, params, generator, tokens)
            counts[tuple(tokens)] += 1
        for answer, probability in exact.items():
            spread = (probability * (1 - probability) / number) ** 0.5
            assert abs(counts[answer] / number - probability) <= 4.5 * spread
