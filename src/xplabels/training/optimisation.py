"""Fitting one network: schedule, loss, history, and a state that can be resumed exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from xplabels.network import UncertainNetwork
from xplabels.network.likelihood import negative_log_likelihood
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import Recipe
from xplabels.training.checkpoint import Checkpoint
from xplabels.training.distillation import Teachers, distillation_loss
from xplabels.training.dust import Dust
from xplabels.training.noise_augmentation import NoiseAugmentation

WARMUP_SHARE = 0.1
"""Share of a one-cycle schedule in which the learning rate rises."""
SECONDS_BETWEEN_STATES = 20.0
GRADIENT_LIMIT = 10.0
"""Norm at which a gradient is clipped; reached only in the first steps of hard cases."""


@dataclass(frozen=True)
class Sample:
    """Stars with scaled labels; ``y`` is NaN where a label is unknown.

    A distilled network asks its ``teachers``. ``dust`` reddens these stars, of which ``rows`` are
    the numbers there; ``faint`` adds noise to them. ``weights`` [K] are those of the labels.
    """

    block: Block
    y: Tensor
    y_error: Tensor
    teachers: Teachers | None = None
    dust: Dust | None = None
    rows: Tensor | None = None
    faint: NoiseAugmentation | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Tensor) -> Sample:
        """The stars ``rows``."""
        teachers = None if self.teachers is None else self.teachers.take(rows)
        numbers = None if self.rows is None else self.rows[rows]
        return replace(
            self, block=self.block.take(rows), y=self.y[rows], y_error=self.y_error[rows],
            teachers=teachers, rows=numbers,
        )  # fmt: skip

    def varied(self, recipe: Recipe) -> Sample:
        """The same stars, most behind more or less dust and some of them fainter."""
        block = self.block
        if self.dust is not None and self.rows is not None:
            block = self.dust.redden(block, self.rows, self.dust.draw(len(self), recipe.reddening))
        if self.faint is not None:
            factor = self.faint.draw(block, recipe.fainter_share, recipe.fainter_decades)
            block = self.faint.dim(block, factor)
        return replace(self, block=block)


class Progress(Protocol):
    """Told after every epoch; shows it to the user."""

    def __call__(
        self, stage: str, epoch: int, epochs: int, train: float, validation: float, left: float
    ) -> None: ...


@dataclass(frozen=True)
class Step:
    """One optimiser step: which stars, which learning rate, and whether it is of the last phase.

    That has no dropout masks but every variance that is added at prediction.
    """

    epoch: int
    rows: Tensor
    learning_rate: float
    last: bool


def fit(
    network: UncertainNetwork,
    propagation: Propagation,
    sample: Sample,
    validation: Sample | None,
    recipe: Recipe,
    *,
    stage: str,
    seed: int,
    epochs: int,
    input_term: bool = True,
    checkpoint: Checkpoint,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train ``network`` in place; returns its history, one entry an epoch.

    The result is the same whether or not the run was killed and resumed in between.
    """
    torch.manual_seed(seed)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    history: list[dict[str, float]] = []
    done = _restore(checkpoint, stage, network, optimiser, history)
    begun, resumed_at, saved = time.monotonic(), done, time.monotonic()
    before = history[-1]["seconds"] if history else 0.0
    steps = list(_epochs(recipe, len(sample), epochs))
    for epoch, count in enumerate(steps):
        if epoch < done:
            continue
        total = 0.0
        network.train()
        for step in _steps(recipe, len(sample), epoch, epochs, seed):
            for group in optimiser.param_groups:
                group["lr"] = step.learning_rate
            optimiser.zero_grad(set_to_none=True)
            batch = sample.take(step.rows.to(propagation.device)).varied(recipe)
            loss = _loss(
                network, propagation, batch, recipe, step.last and input_term, settled=step.last
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
            optimiser.step()
            total += float(loss.detach())
        network.eval()
        spent = time.monotonic() - begun
        entry = {
            "epoch": float(epoch + 1),
            "train": total / count,
            "validation": _evaluate(
                network, propagation, validation, recipe, recipe.input_fraction > 0 and input_term
            ),
            "seconds": before + spent,  # of all runs that got here
        }
        history.append(entry)
        left = (len(steps) - epoch - 1) * spent / (epoch + 1 - resumed_at)
        progress(stage, epoch + 1, len(steps), entry["train"], entry["validation"], left)
        if time.monotonic() - saved > SECONDS_BETWEEN_STATES or epoch + 1 == len(steps):
            _save(checkpoint, stage, network, optimiser, history)
            saved = time.monotonic()
    network.eval()
    return history


def _epochs(recipe: Recipe, stars: int, epochs: int) -> Iterator[int]:
    """Number of steps in each epoch."""
    for epoch in range(_number_of_epochs(recipe, stars, epochs)):
        yield sum(1 for _ in _steps(recipe, stars, epoch, epochs, 0))


def _number_of_epochs(recipe: Recipe, stars: int, epochs: int) -> int:
    if recipe.schedule == "one_cycle":
        return epochs
    batches = math.ceil(stars / recipe.batch_size)
    return batches * math.ceil(_scaled(recipe.iterations, recipe) / PAPER_REPORT)


PAPER_REPORT = 100
"""Steps of the paper's schedule between two entries of the history."""


def _scaled(count: int, recipe: Recipe) -> int:
    return max(1, round(count * recipe.scale))


def _steps(recipe: Recipe, stars: int, epoch: int, epochs: int, seed: int) -> Iterator[Step]:
    """The steps of one epoch; they depend on nothing but these arguments."""
    if recipe.schedule == "fixed_batches":
        yield from _paper_steps(recipe, stars, epoch)
        return
    batches = math.ceil(stars / recipe.batch_size)
    order = torch.randperm(stars, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
    # what is added at prediction is in the loss, however short the training
    settled = max(1, round(epochs * recipe.input_fraction)) if recipe.input_fraction > 0 else 0
    last = epoch >= epochs - settled
    for number, rows in enumerate(order.split(recipe.batch_size)):
        share = (epoch * batches + number) / (epochs * batches)
        yield Step(epoch, rows, recipe.learning_rate * one_cycle(share), last)


def _paper_steps(recipe: Recipe, stars: int, epoch: int) -> Iterator[Step]:
    """Section 3.1: every batch, in fixed order, gets all its iterations before the next."""
    iterations = _scaled(recipe.iterations, recipe)
    warmup = _scaled(recipe.warmup_iterations, recipe) if recipe.warmup_iterations else 0
    per_batch = math.ceil(iterations / PAPER_REPORT)
    batch, part = divmod(epoch, per_batch)
    rows = torch.arange(stars).split(recipe.batch_size)[batch]
    for i in range(part * PAPER_REPORT, min(iterations, (part + 1) * PAPER_REPORT)):
        yield Step(epoch, rows, recipe.learning_rate, i >= warmup)


def one_cycle(share: float) -> float:
    """Learning rate relative to its peak: a cosine up, then a cosine down to nothing.

    Examples
    --------
    >>> one_cycle(WARMUP_SHARE)
    1.0
    """
    if share < WARMUP_SHARE:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * share / WARMUP_SHARE))
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def _loss(
    network: UncertainNetwork, propagation: Propagation, sample: Sample, recipe: Recipe,
    input_term: bool, settled: bool = False,
) -> Tensor:  # fmt: skip
    """Mean loss of one batch, auxiliary inputs hidden at random where the recipe says so.

    ``settled``: without dropout masks although the input term is left out.
    """
    block = sample.block
    if propagation.masks:
        block = block.hide(_hidden(block.missing, recipe.missing_fraction))
    if sample.teachers is not None:
        lesson = sample.teachers.say(propagation.network_input(block))
        out = propagation.run(network, block, input_term=input_term)
        # its match is sought under dropout, as any network's is
        matched = propagation.run(network, block, input_term=False, drop=True).mean
        return distillation_loss(
            lesson, sample.y, sample.y_error, out, matched, recipe, sample.weights
        )
    # the paper keeps its dropout masks throughout; otherwise the last epochs see the network
    # as it predicts, with the scatter under dropout as a variance instead
    drop = not (input_term or settled) or recipe.scatter == "sampling"
    out = propagation.run(network, block, input_term=input_term, drop=drop)
    if recipe.scatter == "sampling":
        out = out._replace(model=torch.zeros_like(out.model))
    return negative_log_likelihood(
        sample.y - out.mean,
        sample.y_error**2 + out.variance,
        recipe.likelihood,
        recipe.dof,
        sample.weights,
    )


def _hidden(missing: Tensor, fraction: float) -> Tensor:
    """Which auxiliary inputs to hide, bool [N, A]: of ``fraction`` of the stars some or all.

    Most stars lack all of a survey or nothing, hence half of these lose everything.
    """
    where, each = missing.device, (len(missing), 1)
    some = torch.rand(missing.shape, device=where) < 0.5
    everything = torch.rand(each, device=where) < 0.5
    return (some | everything) & (torch.rand(each, device=where) < fraction)


def _evaluate(
    network: UncertainNetwork, propagation: Propagation, sample: Sample | None, recipe: Recipe,
    input_term: bool,
) -> float:  # fmt: skip
    """Mean negative log-likelihood of the validation part, without dropout or hidden inputs."""
    if sample is None or not len(sample):
        return math.nan
    total = 0.0
    with torch.no_grad():
        for rows in torch.arange(len(sample), device=propagation.device).split(4096):
            part = sample.take(rows)
            out = propagation.run(network, part.block, input_term=input_term)
            total += len(rows) * float(
                negative_log_likelihood(
                    part.y - out.mean,
                    part.y_error**2 + out.variance,
                    recipe.likelihood,
                    recipe.dof,
                    part.weights,
                )
            )
    return total / len(sample)


def _save(
    checkpoint: Checkpoint, stage: str, network: UncertainNetwork,
    optimiser: torch.optim.Optimizer, history: list[dict[str, float]],
) -> None:  # fmt: skip
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items()}
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    checkpoint.save(stage, tensors, {"history": history})


def _restore(
    checkpoint: Checkpoint, stage: str, network: UncertainNetwork,
    optimiser: torch.optim.Optimizer, history: list[dict[str, float]],
) -> int:  # fmt: skip
    """Bring back the last state of ``stage``; returns the number of epochs done."""
    state = checkpoint.load(stage)
    if state is None:
        return 0
    tensors, facts = state
    prefix = "network."
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    )
    moments: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            moments.setdefault(int(number), {})[key] = tensor
    whole = optimiser.state_dict()
    whole["state"] = moments
    optimiser.load_state_dict(whole)
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    history.extend(facts["history"])
    return len(history)
