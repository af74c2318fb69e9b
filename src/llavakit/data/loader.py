"""Batches made ahead of time in processes of their own, whose mistakes arrive as if they had been made here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from llavakit.data.records import DataError
from llavakit.data.sampler import BatchSampler

AHEAD = 4  # batches that each process keeps ready


def load_batches(
    dataset: Dataset, order: BatchSampler, make: Callable[[list[Any]], Any], *, workers: int
) -> Generator[Any, None, None]:
    """`make` of the samples of each batch, in `order`, however many `workers` prepare them.

    Workers share the records by forking, so where a system cannot fork the batches are made here. Raises the
    `DataError` of a bad sample as it was written; torch would bury it in the worker's traceback.
    """
    workers = workers if hasattr(os, "fork") else 0
    loader = DataLoader(
        _Batches(dataset, make),
        batch_size=None,
        sampler=order,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_stay,
    )
    for made in loader:
        if isinstance(made, DataError):
            raise made
        yield made


class _Batches(Dataset):
    """A whole batch behind the list of its indices; for a bad sample, the error in its place."""

    def __init__(self, dataset: Dataset, make: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.make = dataset, make

    def __getitem__(self, indices: list[int]) -> Any:
        try:
            return self.make([self.dataset[index] for index in indices])
        except DataError as error:
            return error


def _as_it_is(made: Any) -> Any:
    return made


def _stay(worker: int) -> None:
    """Ctrl-C reaches a whole group of processes, a batch system's SIGTERM every one; the parent still wants batches.

    It stops its workers itself once its last step is done.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
