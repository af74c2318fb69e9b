"""Which samples make which batch: a pure function of (seed, step), so that a resumed run misses and repeats nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

BATCHES_TO_SORT = 16  # samples of like length are put together within this many batches


class BatchSampler(Sampler[list[int]]):
    """Gives the sample indices of each step from `start` to `stop`, by default one epoch.

    An epoch is a shuffled pass over all samples; within windows of a few batches they are sorted by length, so that
    a batch needs little padding, and the batches of a window are shuffled again. A last incomplete batch is filled
    from the beginning of the same epoch.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, seed: int, start: int = 0, stop: int | None = None
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.start = batch_size, seed, start
        self.batches_per_epoch = batches_per_epoch(len(lengths), batch_size)
        self.stop = self.batches_per_epoch if stop is None else stop

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, batches = -1, np.empty(0)
        for step in range(self.start, self.stop):
            if step // self.batches_per_epoch != epoch:
                epoch = step // self.batches_per_epoch
                batches = self._epoch(epoch)
            yield batches[step % self.batches_per_epoch].tolist()

    def _epoch(self, epoch: int) -> np.ndarray:
        """The indices of all batches of an epoch, one a row."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.lengths))
        order = np.resize(order, self.batches_per_epoch * self.batch_size)
        window_size = BATCHES_TO_SORT * self.batch_size
        batches = []
        for window in np.split(order, range(window_size, len(order), window_size)):
            by_length = window[np.argsort(self.lengths[window], kind="stable")].reshape(-1, self.batch_size)
            batches.append(random.permutation(by_length))
        return np.concatenate(batches)


def batches_per_epoch(num_samples: int, batch_size: int) -> int:
    """Batches that hold every sample once; the last may need filling."""
    return -(-num_samples // batch_size)
