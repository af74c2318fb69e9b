"""Who computes what in the next step: plain integers, no tensors.

Every sequence has tokens, of which some are computed; each step lets the computed ones catch up. A new prompt, a prompt
in chunks, one whose beginning was found computed, the next token of an answer, and drafts to be verified are all this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, field

from llavakit.engine.blocks import BLOCK, BlockPool, num_blocks_for
from llavakit.engine.prefix_cache import Key, PrefixCache, chain, root


@dataclass(eq=False)
class Sequence:
    """`keys` are the tokens known so far, prompt first; there will never be more than `max_length` of them.

    `drafts` are guesses of what follows. `names` are those of the prefix cache: the root, then each full block's.
    `copy` is (from, to) where the first block that is its own begins with a copy of another one, still to be made.

    What is computed from token `alone_from` on, where that is given, depends on the whole prompt: it is shared with no
    other sequence, and all of the prompt is computed in one step.
    """

    keys: list[Key]
    max_length: int
    tenant: str = ""
    drafts: Seq[int] = ()
    alone_from: int | None = None
    num_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    copy: tuple[int, int] | None = None
    names: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert 0 < len(self.keys) < self.max_length
        self.names.append(root(self.tenant))
        self.add_names(len(self.keys))

    @property
    def num_pending(self) -> int:
        return len(self.keys) - self.num_computed

    @property
    def num_shared(self) -> int:
        """How many of its computed tokens may serve other sequences too."""
        return self.num_computed if self.alone_from is None else min(self.num_computed, self.alone_from)

    @property
    def num_blocks(self) -> int:
        """How many it needs in all; the last token is never computed."""
        return num_blocks_for(self.max_length - 1)

    def add_names(self, length: int) -> None:
        """Name all full blocks of the first `length` tokens."""
        for start in range((len(self.names) - 1) * BLOCK, length - BLOCK + 1, BLOCK):
            self.names.append(chain(self.names[-1], self.keys[start : start + BLOCK]))


@dataclass(frozen=True)
class Work:
    """Compute tokens [start, end) of a sequence and then its `drafts`.

    `num_logits` scores are wanted: those behind the last token and behind each draft, none if the prompt goes on.
    """

    sequence: Sequence
    start: int
    end: int
    num_logits: int
    drafts: tuple[int, ...] = ()


class Scheduler:
    """First come, first served; up to `max_sequences` at a time, up to `token_budget` tokens in a step.

    A prompt that cannot be cut waits for a step in which it has room, or is the first prompt, whatever its length. A
    sequence starts when there are blocks for all it may come to need, so none is ever thrown out half-way.
    """

    def __init__(self, *, num_blocks: int, max_sequences: int, token_budget: int) -> None:
        if max_sequences < 1 or token_budget < max_sequences or num_blocks < 1:
            raise ValueError(
                f"{max_sequences} sequences with {token_budget} tokens a step and {num_blocks} blocks: there must be "
                "at least one sequence, as many tokens a step as sequences, and one block"
            )
        self.max_sequences, self.token_budget = max_sequences, token_budget
        self.prefixes = PrefixCache()
        self.pool = BlockPool(num_blocks, self.prefixes.forget)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.running)

    def check_room(self, sequence: Sequence) -> None:
        """Raises ValueError if a sequence could never have its turn."""
        length, room = len(sequence.keys), self.pool.num_blocks * BLOCK + 1  # the last token is never computed
        if length >= room:
            raise ValueError(
                f"The prompt is {length} tokens long, but this engine has room for {room}, and one must be left for "
                "the answer. Ask a shorter question, leave out pictures or earlier messages, or give the engine more "
                "room (cache_tokens)."
            )
        if sequence.max_length > room:
            raise ValueError(
                f"The prompt is {length} tokens long and the answer may have up to {sequence.max_length - length}, but "
                f"this engine has room for {room} in all. Ask for an answer of at most {room - length} (max_tokens), "
                "or give the engine more room (cache_tokens)."
            )

    def add(self, sequence: Sequence) -> None:
        """Let it wait for its turn; errors as in `check_room`."""
        self.check_room(sequence)
        self.waiting.append(sequence)

    def schedule(self) -> list[Work]:
        """What to compute next: every answer's last token, then prompts, then drafts, as far as the budget goes."""
        with self._whole_again():
            while self.waiting and len(self.running) < self.max_sequences and self._admit(self.waiting[0]):
                self.running.append(self.waiting[0])
                self.waiting.popleft()
        spare = self.token_budget - sum(sequence.num_pending == 1 for sequence in self.running)
        prompts, answers = list[Work](), list[Work]()
        for sequence in self.running:
            if sequence.num_pending > 1 and spare > 0:
                number = sequence.num_pending
                if sequence.alone_from is None:
                    number = min(spare, number)
                elif prompts and number > spare:
                    continue
                spare -= number
                start, end = sequence.num_computed, sequence.num_computed + number
                prompts.append(Work(sequence, start, end, num_logits=int(end == len(sequence.keys))))
        for sequence in self.running:
            if sequence.num_pending == 1:
                room = max(min(spare, sequence.max_length - len(sequence.keys) - 1), 0)
                drafts = tuple(sequence.drafts[:room])
                spare -= len(drafts)
                answers.append(Work(sequence, sequence.num_computed, len(sequence.keys), 1 + len(drafts), drafts))
        return answers + prompts

    def advance(self, work: Work, tokens: Seq[int] = ()) -> None:
        """A work was done, and gave these tokens: drafts that were right, and the one behind them."""
        sequence = work.sequence
        num_computed = work.end + min(len(tokens), _num_right(work.drafts, tokens))
        with self._whole_again():
            sequence.keys += tokens
            sequence.add_names(num_computed)
            sequence.num_computed = num_computed
            sequence.drafts = ()
            self._end_copy(sequence)
            for index in range(work.start // BLOCK, sequence.num_shared // BLOCK):
                keys = sequence.keys[index * BLOCK : (index + 1) * BLOCK]
                self.prefixes.put(sequence.blocks[index], sequence.names[index], keys)

    def remove(self, sequence: Sequence) -> None:
        """It is done, or nobody wants it any more: its blocks are free for others at once, or kept as long as they can.

        Does nothing if it was removed before.
        """
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence not in self.running:
            return
        with self._whole_again():
            self.running.remove(sequence)
            num_full, num_left = divmod(sequence.num_shared, BLOCK)
            if sequence.copy is None and num_left:
                keys = sequence.keys[num_full * BLOCK : sequence.num_shared]
                self.prefixes.put(sequence.blocks[num_full], sequence.names[num_full], keys)
            self._end_copy(sequence)
            self._release(sequence)

    def check_integrity(self) -> None:
        """Assert that the counts are those of the tables, and that nothing is remembered of free blocks."""
        self.pool.check(self._counts())
        assert not any(self.pool.is_free(block) for block in self.prefixes)
        assert all(not (s.blocks or s.copy or s.num_computed) for s in self.waiting)

    @contextmanager
    def _whole_again(self) -> Iterator[None]:
        """Whatever breaks in, a Ctrl-C between two lines among it, the counts are those of the tables afterwards.

        They are counted anew, and what was kept for later is forgotten, for it may have been half remembered.
        """
        try:
            yield
        except BaseException:
            self.waiting = deque(sequence for sequence in self.waiting if sequence not in self.running)
            for sequence in self.waiting:
                sequence.blocks, sequence.copy, sequence.num_computed = [], None, 0
            self.prefixes.clear()
            self.pool.recount(self._counts())
            raise

    def _counts(self) -> list[int]:
        """How often each block stands in a table, or is the source of a copy to be made."""
        counts = [0] * self.pool.num_blocks
        for sequence in self.running:
            for block in [*sequence.blocks, *(sequence.copy or ())[:1]]:
                counts[block] += 1
        return counts

    def _admit(self, sequence: Sequence) -> bool:
        """Give it all the blocks it will need; without effect if there are too few."""
        keys = sequence.keys if sequence.alone_from is None else sequence.keys[: sequence.alone_from + 1]
        blocks, partial, num_partial = self.prefixes.match(keys, sequence.names)
        for block in blocks:
            self.pool.share(block)
        is_ours = partial is not None and self.pool.count(partial) == 0 and not self.prefixes.is_full(partial)
        if partial is not None:
            self.pool.share(partial)
        need = sequence.num_blocks - len(blocks) - is_ours
        if partial is not None and not is_ours and self.pool.num_available < need:
            self.pool.release(partial, keep=True)
            partial = None
        sequence.blocks = [*blocks, partial] if is_ours and partial is not None else [*blocks]
        if self.pool.num_available < need:
            self._release(sequence)
            return False
        if is_ours and partial is not None:
            self.prefixes.forget(partial)
        sequence.blocks += self.pool.take(need, after=sequence.blocks[-1] if sequence.blocks else None)
        sequence.num_computed = len(blocks) * BLOCK + (num_partial if partial is not None else 0)
        if partial is not None and not is_ours:
            sequence.copy = (partial, sequence.blocks[len(blocks)])
        return True

    def _end_copy(self, sequence: Sequence) -> None:
        if sequence.copy is not None:
            source, sequence.copy = sequence.copy[0], None
            self.pool.release(source, keep=True)

    def _release(self, sequence: Sequence) -> None:
        for block in reversed(sequence.blocks):  # so that the end of a prompt goes before its beginning
            self.pool.release(block, keep=block in self.prefixes)
        sequence.blocks = []


def _num_right(drafts: Seq[int], tokens: Seq[int]) -> int:
    pairs = enumerate(zip(drafts, tokens, strict=False))
    return next((i for i, (draft, token) in pairs if draft != token), min(len(drafts), len(tokens)))
