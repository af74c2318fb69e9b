"""Batches from other processes are those made here, and so are their mistakes."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
from torch.utils.data import Dataset

from llavakit.data.loader import load_batches
from llavakit.data.records import DataError
from llavakit.data.sampler import BatchSampler


class Numbers(Dataset):
    """Each sample is its number; one may be bad, one may be a surprise."""

    def __init__(self, *, bad: int | None = None, surprise: int | None = None) -> None:
        self.bad, self.surprise = bad, surprise

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise DataError(f"sample {index} is bad")
        if index == self.surprise:
            raise RuntimeError("a mistake of our own")
        return index


def batches(dataset: Numbers, workers: int) -> list[list[int]]:
    order = BatchSampler([1] * 10, batch_size=3, seed=0, start=2, stop=9)
    return list(load_batches(dataset, order, sorted, workers=workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    assert batches(Numbers(), workers) == batches(Numbers(), 0)
    assert len(batches(Numbers(), 0)) == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_told_as_it_was_written(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        batches(Numbers(bad=4), workers)
    assert str(caught.value) == "sample 4 is bad"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_of_our_own_keeps_its_traceback(workers: int) -> None:
    with pytest.raises(RuntimeError, match="a mistake of our own"):
        batches(Numbers(surprise=4), workers)


def test_workers_stand_outside_the_group() -> None:
    """Ctrl-C reaches the whole group of processes: the step under way still gets its batch."""

    class Groups(Numbers):
        def __getitem__(self, index: int) -> int:
            return os.getpgid(0)

    order = BatchSampler([1] * 4, batch_size=2, seed=0)
    groups = {group for made in load_batches(Groups(), order, list, workers=1) for group in made}
    assert len(groups) == 1 and os.getpgid(0) not in groups


def test_a_termination_sent_to_every_process_costs_no_batch() -> None:
    order = BatchSampler([1] * 40, batch_size=1, seed=0)
    others = set(multiprocessing.active_children())
    made = load_batches(Numbers(), order, list, workers=1)
    first = next(made)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid or 0, signal.SIGTERM)
    assert sorted([first, *made]) == [[number] for number in range(40)]


def test_no_worker_outlives_its_iterator() -> None:
    order = BatchSampler([1] * 400, batch_size=1, seed=0)
    others = set(multiprocessing.active_children())  # of an earlier test, on their way out
    made = load_batches(Numbers(), order, list, workers=2)
    next(made)
    own = set(multiprocessing.active_children()) - others
    assert len(own) == 2
    made.close()
    assert not own & set(multiprocessing.active_children())
