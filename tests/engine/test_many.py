"""Many requests in one engine: each answer is that of the naive loop, whoever else is there."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from llavakit.checkpoint.load import Loaded
from llavakit.engine import reference
from llavakit.engine.answering import Request
from llavakit.engine.drafts import Lookup
from llavakit.engine.engine import Engine
from llavakit.engine.runner import TorchRunner
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
    engine = Engine(loaded, cache_tokens=64)
    with pytest.raises(ValueError, match=r"answer of up to 100 need \d+ blocks of 16 tokens, but there are 4 in all"):
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
