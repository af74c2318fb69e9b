"""What a runner computes: the same numbers however a sequence is cut, where its blocks lie, and who is beside it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from PIL import Image

from llavakit.checkpoint.load import Loaded
from llavakit.engine.block_storage import STEP, BlockStorage
from llavakit.engine.blocks import BLOCK, num_blocks_for
from llavakit.engine.runner import Span, TorchRunner
from llavakit.processing.conversation import Conversation


def tokens_of(number: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(4, 300) for _ in range(number)]


def expected(loaded: Loaded, tokens: list[int]) -> torch.Tensor:
    """Scores at every position, all at once and without a cache."""
    hidden = loaded.model(torch.tensor([tokens]), None, torch.arange(len(tokens))[None])
    return loaded.model.language.logits(hidden[0])


def tables(chance: random.Random, lengths: list[int], *, in_order: bool) -> list[list[int]]:
    blocks = list(range(sum(map(num_blocks_for, lengths)) + 3))
    if not in_order:
        chance.shuffle(blocks)
    return [[blocks.pop(0) for _ in range(num_blocks_for(length))] for length in lengths]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_whole_sequence_however_it_is_cut(
    loaded: Loaded, seed: int, in_order: bool, together: bool
) -> None:
    chance, runner = random.Random(seed), TorchRunner(loaded.model, together=together)
    lengths = [chance.randint(1, 70) for _ in range(4)]
    sequences = [tokens_of(length, seed + length) for length in lengths]
    wanted = [expected(loaded, tokens) for tokens in sequences]
    blocks = tables(chance, lengths, in_order=in_order)
    done = [0] * len(lengths)
    while any(start < length for start, length in zip(done, lengths, strict=True)):
        who = [i for i in range(4) if done[i] < lengths[i] and chance.random() < 0.8]
        spans = []
        for i in who:
            end = min(lengths[i], done[i] + chance.choice([1, 1, 3, 30]))
            num_logits = chance.randint(0, end - done[i])
            spans.append(Span(sequences[i][done[i] : end], done[i], blocks[i], None, num_logits))
        for i, span, logits in zip(who, spans, runner.step(spans), strict=True):
            done[i] += len(span.tokens)
            assert len(logits) == span.num_logits
            torch.testing.assert_close(logits, wanted[i][done[i] - span.num_logits : done[i]], atol=2e-5, rtol=0)


@pytest.mark.parametrize("in_order", [False, True])
def test_neighbours_change_no_bit(loaded: Loaded, in_order: bool) -> None:
    chance, lengths = random.Random(0), [40, 23, 61]
    sequences = [tokens_of(length, length) for length in lengths]
    blocks = tables(chance, lengths, in_order=in_order)
    cuts = [0, 20, 21, 22, 23]

    def spans(i: int) -> list[Span]:
        return [Span(sequences[i][a:b], a, blocks[i]) for a, b in pairwise(cuts)]

    crowd = TorchRunner(loaded.model)
    beside = [crowd.step(step) for step in zip(*map(spans, range(3)), strict=True)]
    for i in range(3):
        lone = TorchRunner(loaded.model)
        alone = [lone.step([span])[0] for span in spans(i)]
        assert all(torch.equal(step[i], one) for step, one in zip(beside, alone, strict=True))


def test_where_the_blocks_lie_changes_no_bit(loaded: Loaded) -> None:
    tokens, results = tokens_of(50, 0), []
    for blocks in ([0, 1, 2, 3], [7, 2, 9, 0]):
        runner = TorchRunner(loaded.model)
        cuts = pairwise([0, 30, 31, 32, 50])
        results.append([runner.step([Span(tokens[a:b], a, blocks)])[0] for a, b in cuts])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_positions_that_leave_gaps_are_kept_in_a_batch(loaded: Loaded) -> None:
    tokens = [tokens_of(12, 0), tokens_of(9, 1)]
    places = [[*range(5), *range(40, 47)], [*range(3), *range(20, 26)]]
    spans = [Span(tokens[i], 0, [i], None, 2, places[i]) for i in range(2)]
    alone, together = (TorchRunner(loaded.model, together=how).step(spans) for how in (False, True))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=0)


def biased_spans() -> list[Span]:
    """Two sequences of which some tokens count for several, and then one token more of each."""
    spans = []
    for row, length in enumerate((12, 17)):  # short enough for a batch
        tokens, blocks = tokens_of(length, row), [row, row + 4]
        bias = [float(at % 5) if at in range(3, 9) else 0.0 for at in range(length)]
        spans += [
            Span(tokens[:-1], 0, blocks, None, 1, bias=bias[:-1]),
            Span(tokens[-1:], length - 1, blocks, None, 1),
        ]
    return spans


@pytest.mark.parametrize("together", [False, True])
def test_tokens_that_count_for_several_do_so_for_all_that_follow(loaded: Loaded, together: bool) -> None:
    runner, spans = TorchRunner(loaded.model, together=together), biased_spans()
    runner.step([Span(tokens_of(60, 5), 0, [3, 5, 6, 7], None, 1, bias=[9.0] * 60)])  # leaves its traces in block 5
    found = runner.step(spans[::2]) + runner.step(spans[1::2])
    for row, (first, second) in enumerate(pairwise(spans)):
        if row % 2 == 0:
            tokens = torch.tensor([[*first.tokens, *second.tokens]])
            bias, positions = torch.tensor([[*first.bias, 0.0]]), torch.arange(tokens.shape[1])[None]
            hidden = loaded.model.language(loaded.model.language.embed(tokens), positions, None, bias)
            scores = loaded.model.language.logits(hidden[0, -2:])
            ours = torch.cat((found[row // 2], found[2 + row // 2]))
            torch.testing.assert_close(ours, scores, atol=2e-5, rtol=0)


def test_nobody_notices_that_others_count_for_several(loaded: Loaded) -> None:
    tokens, results = tokens_of(30, 0), []
    for others in ([], [Span(tokens_of(40, 1), 0, [0, 1, 4], bias=[2.0] * 40)]):
        runner = TorchRunner(loaded.model)
        runner.step(others)  # in blocks that are then used again
        results.append([runner.step([Span(tokens[a:b], a, [0, 1])])[0] for a, b in pairwise([0, 20, 21, 30])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_copied_block_counts_as_the_first(loaded: Loaded) -> None:
    tokens, runner = tokens_of(30, 0), TorchRunner(loaded.model)
    runner.step([Span(tokens[:20], 0, [0, 1], bias=[1.0] * 20)])
    runner.copy(1, 40)
    one, other = (runner.step([Span(tokens[20:], 20, blocks)])[0] for blocks in ([0, 40], [0, 1]))
    assert torch.equal(one, other)


def test_a_copied_block_is_as_good_as_the_first(loaded: Loaded) -> None:
    tokens, runner = tokens_of(30, 0), TorchRunner(loaded.model)
    runner.step([Span(tokens[:20], 0, [0, 1])])
    runner.copy(1, 40)
    one, other = (runner.step([Span(tokens[20:], 20, blocks)])[0] for blocks in ([0, 40], [0, 1]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("together", [False, True])
def test_a_picture_may_be_cut_anywhere(loaded: Loaded, picture: Callable[[int], Image.Image], together: bool) -> None:
    inputs = loaded.processor(Conversation().ask(picture(0), "what?"))
    (start, end), tokens = inputs.spans[0], inputs.tokens
    runner = TorchRunner(loaded.model, together=together)
    assert inputs.pixels is not None
    embeds = runner.encode(inputs.pixels, inputs.sizes[0]).embeds
    assert len(embeds) == end - start
    blocks = list(range(num_blocks_for(len(tokens))))
    whole = runner.step([Span(tokens, 0, blocks, embeds)])[0]
    for cut in range(start, end + 1):
        first, second = embeds[: cut - start], embeds[cut - start :]
        runner.step([Span(tokens[:cut], 0, blocks, first if len(first) else None, 0)])
        rest = runner.step([Span(tokens[cut:], cut, blocks, second if len(second) else None)])[0]
        torch.testing.assert_close(rest, whole, atol=2e-5, rtol=0)


def test_memory_follows_need_in_steps_and_keeps_what_is_there(loaded: Loaded) -> None:
    config = loaded.config.language
    storage, sizes = BlockStorage(config, dtype=torch.float32, device=torch.device("cpu")), set()
    assert storage.num_blocks == 0
    for block in range(80):
        storage.reserve(block + 1)
        storage.keys[:, :, block * BLOCK] = block
        sizes.add(storage.num_blocks)
    assert sorted(sizes) == [STEP, 2 * STEP, 3 * STEP, 5 * STEP]
    assert storage.keys[1, 0, : 80 * BLOCK : BLOCK, 0].tolist() == list(range(80))
