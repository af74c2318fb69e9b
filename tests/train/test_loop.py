"""One step: what it adds up, what it changes, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from llavakit.data.collate import Batch, Sample, collate
from llavakit.data.sampler import BatchSampler
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.loop import fit, num_steps, train_step
from llavakit.train.optimizer import freeze_rest, make_optimizers
from llavakit.train.setup import prepare
from llavakit.train.stages import STAGES

Configure = Callable[..., TrainConfig]
LEARNS = {
    ("clip", 0.0): {"vision", "text"},
    ("language", 0.0): {"language"},
    ("align", 0.0): {"projector"},
    ("instruct", 0.0): {"projector", "language"},
    ("instruct", 1e-3): {"projector", "language", "vision"},
}


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("stage", ["language", "align", "instruct"])
def test_accumulation_changes_nothing(stage: str, micro_batch: int, configure: Configure) -> None:
    """The same figures and gradients from one piece and from several."""
    whole, figures = gradients(configure(stage))
    pieces, same_figures = gradients(configure(stage, micro_batch=micro_batch))
    assert pieces.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
    assert same_figures == pytest.approx(figures, rel=1e-5)


def test_every_token_of_a_batch_counts_alike(configure: Configure) -> None:
    """Pieces of 1 and 40 targets: a mean of the pieces' means would weigh the single token forty times."""
    config = configure("language")
    model = prepare(config).model
    samples = [Sample([5, 6], [False, True]), Sample([*range(10, 51)], [False] + [True] * 40)]
    optimizers = optimizers_of(model, config)
    row = train_step(model, [collate([sample], pad=0) for sample in samples], optimizers, config)
    losses = []
    for sample in samples:
        batch = collate([sample], pad=0)
        losses.append(STAGES["language"].loss(prepare(config).model, batch, config)[0].item())
    assert row["loss"] == pytest.approx(sum(losses) / 41, rel=1e-5)
    assert row["tokens"] == 41


@pytest.mark.parametrize(("stage", "vision_rate"), LEARNS)
def test_exactly_what_the_stage_names_learns(stage: str, vision_rate: float, configure: Configure) -> None:
    """Learning tensors change, and frozen ones stay as they were, bit for bit."""
    config = configure(stage, steps=2, vision_rate=vision_rate)
    setup = prepare(config)
    before = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    fit(setup, config)
    after = setup.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = LEARNS[stage, vision_rate]
    learning = {name for name in before if stage == "clip" or name.split(".")[0] in parts}
    assert changed <= learning
    # A key's bias moves every score of a query alike, so that nothing is left for it to learn.
    still = {name for name in learning - changed if not name.endswith("k_proj.bias")}
    assert not still


def test_the_tower_has_its_own_rate(configure: Configure) -> None:
    model = prepare(configure("instruct")).model
    optimizers = optimizers_of(model, configure("instruct", vision_rate=1e-4))
    rates = {id(p): group["peak"] for o in optimizers for group in o.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in model.vision.parameters()} == {1e-4}
    assert {rates[id(p)] for p in [*model.projector.parameters(), *model.language.parameters()]} == {1e-2}


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls(stage: str, configure: Configure) -> None:
    config = configure(stage, steps=12, batch_size=10, warmup=0.0)
    setup = prepare(config)
    fit(setup, config)
    assert loss_of(setup.model, config) < loss_of(prepare(config).model, config)


def test_a_loss_that_is_no_number_ends_the_run(configure: Configure) -> None:
    config = configure("align")
    setup = prepare(config)
    with torch.no_grad():
        setup.model.language.norm.weight[0] = float("nan")
    with pytest.raises(TrainError, match="the loss is nan .* lower learning_rate"):
        fit(setup, config)


@pytest.mark.parametrize(
    ("num_samples", "epochs", "steps"),
    # The first two are LLaVA-1.5's own runs: 2,181 and 5,198 steps.
    [(558_128 / 256, 1, 2181), (665_298 / 128, 1, 5198), (10, 1, 10), (2.5, 2, 6), (0.1, 1, 1), (2.5, 0.5, 2)],
)
def test_epochs_as_steps(num_samples: float, epochs: float, steps: int, configure: Configure) -> None:
    """Sample counts are given in batches."""
    batch_size = {2181: 256, 5198: 128}.get(steps, 20)
    config = configure("align", steps=None, epochs=epochs, batch_size=batch_size)
    assert num_steps(config, round(num_samples * batch_size)) == steps


def gradients(config: TrainConfig) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Of the first step; the optimisers are kept from using and forgetting them."""
    setup = prepare(config)
    optimizers = optimizers_of(setup.model, config)
    for optimizer in optimizers:
        optimizer.step = optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
    figures = train_step(setup.model, first_batch(config), optimizers, config)
    return {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}, figures


def first_batch(config: TrainConfig) -> list[Batch]:
    setup = prepare(config)
    order = BatchSampler(setup.dataset.lengths, batch_size=config.batch_size, seed=0)
    samples = [setup.dataset[index] for index in next(iter(order))]
    micro = config.micro_batch or len(samples)
    make = STAGES[config.stage].collate
    return [make(samples[at : at + micro], pad=setup.pad) for at in range(0, len(samples), micro)]


def loss_of(model: nn.Module, config: TrainConfig) -> float:
    with torch.inference_mode():
        (batch,) = first_batch(config)
        return STAGES[config.stage].loss(model, batch, config)[0].item()


def optimizers_of(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    rates = STAGES[config.stage].learning_rates(config)
    freeze_rest(model, rates)
    return make_optimizers(model, rates, config)
