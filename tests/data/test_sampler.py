"""The order of samples: a pure function of seed and step."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.data.sampler import BatchSampler

sizes = st.integers(1, 60), st.integers(1, 9), st.integers(0, 5)


def order(num_samples: int, batch_size: int, seed: int, start: int = 0, stop: int | None = None) -> list[list[int]]:
    lengths = [(index * 37) % 11 for index in range(num_samples)]
    return list(BatchSampler(lengths, batch_size=batch_size, seed=seed, start=start, stop=stop))


@settings(deadline=None)
@given(*sizes, st.integers(0, 40), st.integers(0, 40))
def test_a_resumed_run_sees_the_tail(num_samples: int, batch_size: int, seed: int, start: int, more: int) -> None:
    whole = order(num_samples, batch_size, seed, stop=start + more)
    assert order(num_samples, batch_size, seed, start=start, stop=start + more) == whole[start:]


@settings(deadline=None)
@given(*sizes)
def test_an_epoch_holds_every_sample(num_samples: int, batch_size: int, seed: int) -> None:
    """Once, but for those that fill up the last batch."""
    batches = order(num_samples, batch_size, seed)
    assert all(len(batch) == batch_size for batch in batches)
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts) == set(range(num_samples))
    assert sum(counts.values()) == -(-num_samples // batch_size) * batch_size
    assert max(counts.values()) - min(counts.values()) <= 1


def test_epochs_and_seeds_differ() -> None:
    two_epochs = order(40, 4, 0, stop=20)
    assert two_epochs[:10] != two_epochs[10:]
    assert order(40, 4, 0) != order(40, 4, 1)


def test_like_lengths_share_a_batch() -> None:
    lengths = [index % 8 for index in range(64)]
    batches = BatchSampler(lengths, batch_size=8, seed=0)
    assert all(len({lengths[index] for index in batch}) == 1 for batch in batches)
    assert len(batches) == 8


def test_the_order_stays_what_it_was() -> None:
    """Runs that are under way depend on it."""
    assert order(7, 3, 5, stop=4) == [[4, 2, 5], [0, 3, 6], [1, 1, 4], [1, 4, 4]]
