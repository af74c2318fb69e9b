"""The scheduler without a model: whatever comes and goes, everybody has the right blocks and nobody waits for ever."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llavakit.engine import blocks, prefix_cache, scheduler
from llavakit.engine.blocks import BLOCK
from llavakit.engine.prefix_cache import Key
from llavakit.engine.scheduler import Scheduler, Sequence, Work

NUM_BLOCKS, MAX_SEQUENCES, BUDGET = 12, 3, 24
PICTURE, PATCHES, KEPT = b"a" * 16, 20, 5


class Scheduling(RuleBasedStateMachine):
    """Memory is a list of what stands in each slot; a sequence must always read there what its keys say.

    Later layers have a memory of their own, in which sequences that do so leave out most of a picture; what stands
    behind is then theirs alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(num_blocks=NUM_BLOCKS, max_sequences=MAX_SEQUENCES, token_budget=BUDGET)
        self.memory: list[Key | None] = [None] * (NUM_BLOCKS * BLOCK)
        self.later: list[Any] = [None] * (NUM_BLOCKS * BLOCK)
        self.order: list[Sequence] = []
        self.tenants: dict[Sequence, str] = {}
        self.who: list[str | None] = [None] * NUM_BLOCKS

    @rule(
        words=st.lists(st.sampled_from([4, 5]), min_size=1, max_size=40),
        picture=st.booleans(),
        room=st.integers(1, 40),
        tenant=st.sampled_from("ab"),
        repeat=st.booleans(),
        drops=st.booleans(),
    )
    def add(self, words: list[int], picture: bool, room: int, tenant: str, repeat: bool, drops: bool) -> None:
        before: list[Key] = [1, *([4] * 30 if repeat else [])]
        keys = [*before, *([PICTURE] * PATCHES if picture else []), *words]
        sequence = Sequence(keys, len(keys) + room, tenant, alone_from=len(before) if picture and drops else None)
        if sequence.num_blocks > NUM_BLOCKS:
            with pytest.raises(ValueError, match=f"this engine has room for {NUM_BLOCKS * BLOCK + 1}"):
                self.scheduler.add(sequence)
        else:
            self.scheduler.add(sequence)
            self.order.append(sequence)

    @precondition(lambda self: self.order)
    @rule(data=st.data(), is_broken_off=st.booleans())
    def step(self, data: st.DataObject, is_broken_off: bool) -> None:
        for sequence in self.scheduler.running:
            sequence.drafts = data.draw(st.lists(st.sampled_from([4, 5]), max_size=4))
        works = self.scheduler.schedule()
        lengths = [work.end - work.start + len(work.drafts) for work in works]
        if sum(lengths) > BUDGET:  # by one prompt that cannot be cut, and nothing else
            [long] = [work for work in works if work.end - work.start > 1]
            assert long.sequence.alone_from is not None and sum(lengths) == len(works) - 1 + long.end - long.start
        assert works
        assert self.scheduler.running == [s for s in self.order if s in self.scheduler.running]
        assert self.order[: len(self.scheduler.running)] == self.scheduler.running, "first come, first served"
        for sequence in self.scheduler.running:
            assert sequence.num_pending > 1 or any(work.sequence is sequence for work in works)
        for work in works:
            self.compute(work)
        if is_broken_off:
            return
        for work in works:
            self.finish(work, data)

    def compute(self, work: Work) -> None:
        sequence = work.sequence
        if sequence.copy is not None:
            source, target = (block * BLOCK for block in sequence.copy)
            for memory in (self.memory, self.later):
                memory[target : target + BLOCK] = memory[source : source + BLOCK]
        assert [self.memory[slot] for slot in slots(sequence)[: work.start]] == sequence.keys[: work.start]
        assert work.start == sequence.num_computed < work.end <= len(sequence.keys)
        new = [*sequence.keys[work.start : work.end], *work.drafts]
        for slot, key in zip(slots(sequence)[work.start :], new, strict=False):
            self.memory[slot] = key
        assert work.start + len(new) <= len(slots(sequence))
        self.compute_later(sequence, work.start, new)
        assert sequence.alone_from is None or work.end == len(sequence.keys)

    def compute_later(self, sequence: Sequence, start: int, new: list[Key]) -> None:
        known, known_and_new = (
            later_keys(sequence, keys) for keys in (sequence.keys[:start], sequence.keys[:start] + new)
        )
        assert [self.later[slot] for slot in slots(sequence)[: len(known)]] == known
        for slot, key in zip(slots(sequence), known_and_new, strict=False):
            self.later[slot] = key

    def finish(self, work: Work, data: st.DataObject) -> None:
        sequence, tokens, is_stopped = work.sequence, list[int](), False
        if work.num_logits:
            assert work.num_logits == 1 + len(work.drafts)
            right = data.draw(st.integers(0, len(work.drafts)))
            wrong = [9 - work.drafts[right]] if right < len(work.drafts) else [data.draw(st.sampled_from([4, 5]))]
            tokens = [*work.drafts[:right], *wrong]
            if is_stopped := data.draw(st.integers(0, 7)) == 0:
                tokens = tokens[: data.draw(st.integers(0, len(tokens)))]
        self.scheduler.advance(work, tokens)
        if is_stopped or len(sequence.keys) == sequence.max_length:
            self.remove(sequence)

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.remove(data.draw(st.sampled_from(self.order)))

    def remove(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.order.remove(sequence)
        assert not sequence.blocks
        self.scheduler.remove(sequence)

    @invariant()
    def counts_are_right(self) -> None:
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= MAX_SEQUENCES
        if self.scheduler.is_idle:
            assert self.scheduler.pool.num_available == NUM_BLOCKS

    @invariant()
    def nobody_writes_where_others_read(self) -> None:
        for sequence in self.scheduler.running:
            assert len(sequence.blocks) == len(set(sequence.blocks)) == sequence.num_blocks
            for other in self.scheduler.running:
                own = set(sequence.blocks[sequence.num_computed // BLOCK :])
                assert other is sequence or not own & set(other.blocks)
                assert other.tenant == sequence.tenant or not set(other.blocks) & set(sequence.blocks)


def later_keys(sequence: Sequence, keys: list[Key]) -> list[Any]:
    """What stands for these tokens in the memory of later layers."""
    if (first := sequence.alone_from) is None:
        return keys
    kept = keys[first : first + KEPT] + keys[first + PATCHES :]
    return keys[:first] + [(sequence, key) for key in kept]


def slots(sequence: Sequence) -> list[int]:
    return [block * BLOCK + offset for block in sequence.blocks for offset in range(BLOCK)]


Scheduling.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase


def run(scheduler: Scheduler, sequence: Sequence) -> list[Work]:
    """Until it is done, each step giving one token."""
    works = []
    while sequence in [*scheduler.waiting, *scheduler.running]:
        for work in scheduler.schedule():
            works += [work] if work.sequence is sequence else []
            scheduler.advance(work, [8] if work.num_logits else [])
            if len(work.sequence.keys) == work.sequence.max_length:
                scheduler.remove(work.sequence)
    return works


def test_a_long_prompt_is_computed_in_chunks_while_others_are_answered() -> None:
    scheduler = Scheduler(num_blocks=40, max_sequences=2, token_budget=10)
    short, long = Sequence([1], 30), Sequence(list(range(1, 61)), 62)
    scheduler.add(short)
    scheduler.add(long)
    works = run(scheduler, long)
    assert [work.end - work.start for work in works[:7]] == [9, 9, 9, 9, 9, 9, 6]
    assert len(short.keys) == 1 + len(works)


def test_a_prompt_that_cannot_be_cut_waits_for_room_or_goes_first() -> None:
    scheduler = Scheduler(num_blocks=40, max_sequences=3, token_budget=30)
    first, large, small = (
        Sequence([1] * 20, 30),
        Sequence([2] * 50, 60, alone_from=1),
        Sequence([3] * 20, 30, alone_from=1),
    )
    for sequence in (first, large, small):
        scheduler.add(sequence)
    steps = []
    while any(sequence.num_pending > 1 for sequence in (first, large, small)):
        works = scheduler.schedule()
        steps.append([(work.sequence.keys[0], work.end - work.start) for work in works])
        for work in works:
            scheduler.advance(work, [8] if work.num_logits else [])
    assert steps == [[(1, 20)], [(1, 1), (2, 50)], [(1, 1), (2, 1), (3, 20)]]


def test_what_holds_for_one_prompt_alone_is_not_found_again() -> None:
    scheduler = Scheduler(num_blocks=40, max_sequences=1, token_budget=100)
    asked = list(range(1, 60))
    found = []
    for alone_from in (20, 20, 35, None, None):
        scheduler.add(sequence := Sequence(asked, 61, alone_from=alone_from))
        found.append(run(scheduler, sequence)[0].start)
        asked = asked[:59]
    assert found == [0, 20, 20, 35, 58]


def test_who_waits_for_room_goes_before_who_came_later() -> None:
    scheduler = Scheduler(num_blocks=4, max_sequences=4, token_budget=100)
    first, large, small = Sequence([1], 40), Sequence([2], 60), Sequence([3], 10)
    for sequence in (first, large, small):
        scheduler.add(sequence)
    scheduler.schedule()
    assert scheduler.running == [first] and list(scheduler.waiting) == [large, small]
    scheduler.remove(first)
    scheduler.schedule()
    assert scheduler.running == [large]


def test_a_follow_up_goes_on_in_the_same_row_of_blocks() -> None:
    scheduler = Scheduler(num_blocks=40, max_sequences=4, token_budget=100)
    first = Sequence(list(range(1, 41)), 50)
    scheduler.add(first)
    run(scheduler, first)
    second = Sequence([*first.keys[:49], 77, 78], 80)
    scheduler.add(second)
    [work] = scheduler.schedule()
    assert work.start == 49 and second.copy is None
    assert second.blocks == list(range(second.blocks[0], second.blocks[0] + len(second.blocks)))


@pytest.mark.parametrize("wrong", [{"max_sequences": 0}, {"token_budget": 1}, {"num_blocks": 0}])
def test_impossible_limits_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        Scheduler(**{"num_blocks": 4, "max_sequences": 2, "token_budget": 8} | wrong)


FILES = {module.__file__ for module in (blocks, prefix_cache, scheduler)}


def interrupt_at(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that presses Ctrl-C in front of the so manieth line of the scheduler's files."""
    left = itertools.count(line, -1)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line" and next(left) == 0:
            raise KeyboardInterrupt
        return trace

    return trace


def busy() -> tuple[Scheduler, list[Sequence]]:
    """Some run, one waits for the copy of a block, others for room; what is kept has to be given up for them."""
    made = Scheduler(num_blocks=8, max_sequences=3, token_budget=40)
    old = Sequence(list(range(1, 60)), 62)
    made.add(old)
    run(made, old)
    asked = [Sequence([*range(1, 20 + n), 70 + n], 26 + 2 * n) for n in range(4)]
    for sequence in asked[:2]:
        made.add(sequence)
    made.schedule()
    for sequence in asked[2:]:
        made.add(sequence)
    return made, asked


def test_an_interruption_at_any_line_loses_no_block_and_nobody() -> None:
    was_interrupted, line = True, 0
    while was_interrupted:
        made, asked = busy()
        before = sys.gettrace()
        sys.settrace(interrupt_at(line))
        try:
            for work in made.schedule():
                made.advance(work, [8] if work.num_logits else [])
            made.remove(asked[1])
            was_interrupted = False
        except KeyboardInterrupt:
            line += 1
        finally:
            sys.settrace(before)
        made.check_integrity()
        for sequence in asked:
            run(made, sequence)
            made.check_integrity()
        assert made.is_idle and made.pool.num_available == 8
    assert line > 100


def test_too_long_a_prompt_and_too_long_an_answer_are_told_apart() -> None:
    small = Scheduler(num_blocks=4, max_sequences=1, token_budget=16)
    small.add(Sequence([1] * 60, 65))
    with pytest.raises(ValueError, match=r"prompt is 65 tokens long, but .* has room for 65.*shorter question"):
        small.add(Sequence([1] * 65, 66))
    with pytest.raises(ValueError, match=r"60 tokens .* up to 6, but .* room for 65 in all.* at most 5 \(max_tokens\)"):
        small.add(Sequence([1] * 60, 66))
