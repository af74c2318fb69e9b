"""Steps of fixed shapes, recorded once for each shape and replayed: the GPU then waits for Python no more.

To launch the kernels of a model of 32 layers one by one takes Python longer than it takes a GPU to compute them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
Recorder = Callable[[Step, Tensor], Step]


class Recorded:
    """A step that was recorded for each shape it was ever asked for. What it gives holds until the next one."""

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._replays: dict[torch.Size, Step] = {}

    def __call__(self, plan: Tensor) -> Tensor:
        if plan.shape not in self._replays:
            self._replays[plan.shape] = self._recorder(self._step, plan)
        return self._replays[plan.shape](plan)


class CudaGraphs:
    """Records steps as CUDA graphs, all in one pool of memory: what one leaves there another may write over.

    Plans come from the host, in pinned memory.

    Recording computes the step once before, because what is compiled at a first call cannot be recorded. A step has to
    bear that: ours writes the same keys and values into the same places.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, step: Step, plan: Tensor) -> Step:
        given, graph, aside = plan.to(self._device), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            step(given)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph, pool=self._pool, stream=aside):  # torch's own is of the card it was first used on
            made = step(given)

        def replay(plan: Tensor) -> Tensor:
            given.copy_(plan, non_blocking=True)
            graph.replay()
            return made

        return replay
