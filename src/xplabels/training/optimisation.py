"""Fitting one network: the schedule of its steps, its history, and states to go on from."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from xplabels.network import UncertainNetwork
from xplabels.recipes import Recipe
from xplabels.training.checkpoint import Checkpoint, History
from xplabels.training.objective import LabelledStars, Objective

logger = logging.getLogger(__name__)

WARMUP_SHARE = 0.1
"""Share of a one-cycle schedule in which the learning rate rises."""
SECONDS_BETWEEN_STATES = 20.0
GRADIENT_LIMIT = 10.0
"""Norm at which a gradient is clipped; reached only in the first steps of hard cases."""
PAPER_REPORT = 100
"""Steps of the paper's schedule between two entries of the history."""


class Step(NamedTuple):
    """One step of the optimiser."""

    rows: Tensor
    learning_rate: float
    last: bool  # of the phase without dropout, with every variance that is added at prediction


def fit(
    network: UncertainNetwork,
    objective: Objective,
    stars: LabelledStars,
    validation: LabelledStars,
    *,
    stage: str,
    seed: int,
    epochs: int,
    checkpoint: Checkpoint,
    progress: bool,
) -> History:
    """Train ``network`` in place; returns its history, one entry per epoch.

    The result is the same whether or not the run was killed and resumed in between.
    """
    recipe, device = objective.recipe, objective.propagation.device
    torch.manual_seed(seed)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    history = checkpoint.restore(stage, network, optimiser)
    begun = saved = time.monotonic()
    done, before = len(history), history[-1]["seconds"] if history else 0.0
    total = number_of_epochs(recipe, len(stars.y), epochs)
    bar = tqdm(
        total=total, initial=done, desc=stage, unit="epoch", disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 30,
    )  # fmt: skip
    remaining = islice(schedule(recipe, len(stars.y), epochs, seed), done, None)
    for epoch, steps in enumerate(remaining, start=done + 1):
        losses = []
        network.train()
        for step in steps:
            for group in optimiser.param_groups:
                group["lr"] = step.learning_rate
            optimiser.zero_grad(set_to_none=True)
            batch = objective.vary(stars.take(step.rows.to(device)))
            loss = objective.loss(network, batch, step.last)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
            optimiser.step()
            losses.append(float(loss.detach()))
        network.eval()
        now = time.monotonic()
        entry = {
            "epoch": float(epoch),
            "train": sum(losses) / len(losses),
            "validation": objective.evaluate(network, validation),
            "seconds": before + now - begun,  # of all runs that got here
        }
        history.append(entry)
        text = f"loss {entry['train']:.3f}  validation {entry['validation']:.3f}"
        bar.set_postfix_str(text, refresh=False)
        bar.update()
        logger.debug("%s: epoch %d/%d  %s", stage, epoch, total, text)
        if now - saved > SECONDS_BETWEEN_STATES or epoch == total:
            checkpoint.save(stage, network, optimiser, history)
            saved = now
    bar.close()
    network.eval()
    return history


def number_of_epochs(recipe: Recipe, stars: int, epochs: int) -> int:
    """Entries of the history: of the paper's schedule one per :data:`PAPER_REPORT` steps."""
    if recipe.schedule == "one_cycle":
        return epochs
    batches = math.ceil(stars / recipe.batch_size)
    return batches * math.ceil(_scaled(recipe.iterations, recipe) / PAPER_REPORT)


def schedule(recipe: Recipe, stars: int, epochs: int, seed: int) -> Iterator[list[Step]]:
    """The steps of each epoch; they depend on nothing but these arguments."""
    if recipe.schedule == "fixed_batches":
        # FS24, section 3.1: every batch, in fixed order, gets all its iterations before the next
        iterations = _scaled(recipe.iterations, recipe)
        warmup = _scaled(recipe.warmup_iterations, recipe) if recipe.warmup_iterations else 0
        for rows in torch.arange(stars).split(recipe.batch_size):
            steps = [Step(rows, recipe.learning_rate, i >= warmup) for i in range(iterations)]
            yield from (steps[i : i + PAPER_REPORT] for i in range(0, iterations, PAPER_REPORT))
        return
    # what is added at prediction is in the loss, however short the training
    last = max(1, round(epochs * recipe.input_fraction)) if recipe.input_fraction > 0 else 0
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        batches = torch.randperm(stars, generator=generator).split(recipe.batch_size)
        yield [
            Step(
                rows,
                recipe.learning_rate
                * one_cycle((epoch * len(batches) + number) / (epochs * len(batches))),
                epoch >= epochs - last,
            )
            for number, rows in enumerate(batches)
        ]


def _scaled(count: int, recipe: Recipe) -> int:
    return max(1, round(count * recipe.scale))


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
