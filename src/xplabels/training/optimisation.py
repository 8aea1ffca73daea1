"""Fitting one network: the schedule of its steps, its history, and states to resume from.

A state is written completely or not at all, as safetensors with the history in JSON, so reading it
back cannot execute code.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from xplabels.io.atomic import LAST_WORD, whole_file
from xplabels.io.files import whole
from xplabels.io.job import open_partial
from xplabels.network import UncertainNetwork
from xplabels.recipes import Recipe
from xplabels.training.objective import LabelledStars, Objective

logger = logging.getLogger(__name__)

WARMUP_SHARE = 0.1
"""Share of a one-cycle schedule in which the learning rate rises."""
SECONDS_BETWEEN_STATES = 20.0
GRADIENT_LIMIT = 10.0
"""Norm at which a gradient is clipped; reached only in the first steps of hard cases."""
LARGEST_SEED = 2**63
"""Bound on the seeds that torch takes; derived seeds are taken modulo it."""
PAPER_REPORT = 100
"""Steps of the paper's schedule between two entries of the history."""
CHECKPOINT_FILES = ("manifest.json", LAST_WORD, "*.safetensors", ".*.partial.*")
"""Names of the files that the folder of an unfinished training may hold."""

History = list[dict[str, float]]


class Checkpoint:
    """A folder with the last state of each stage of one training run; None keeps nothing.

    The ``manifest`` identifies the run by its data, recipe and seed. ``overwrite`` removes the
    states of another run. Raises :class:`InputError` if the folder belongs to another run, or holds
    something else.
    """

    def __init__(
        self, folder: Path | None, manifest: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.folder = folder
        if folder is not None:
            open_partial(folder, "manifest.json", manifest, CHECKPOINT_FILES, overwrite)

    def save(
        self, stage: str, network: nn.Module, optimiser: torch.optim.Optimizer, history: History
    ) -> None:
        """Replace the saved state of ``stage``, which includes torch's random generators."""
        if self.folder is None:
            return
        tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        detached = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        # written below and not by safetensors, which raises an error of its own on a full disk
        content = save(detached, metadata={"history": json.dumps(history)})
        with whole_file(self.folder / f"{stage}.safetensors", overwrite=True) as partial:
            partial.write_bytes(content)

    def restore(self, stage: str, network: nn.Module, optimiser: torch.optim.Optimizer) -> History:
        """Restore the last state of ``stage``; returns its history, empty if none was saved."""
        path = Path() if self.folder is None else self.folder / f"{stage}.safetensors"
        if not path.is_file():
            return []
        with (
            whole(path, "checkpoint", "remove it: its stage is done anew"),
            safe_open(str(path), framework="pt") as file,
        ):
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history: History = json.loads(file.metadata()["history"])
        weights: dict[str, Tensor] = {}
        moments = defaultdict[int, dict[str, Tensor]](dict)
        for name, tensor in tensors.items():
            match name.split(".", 2):
                case ["network", *_]:
                    weights[name.removeprefix("network.")] = tensor
                case ["optimiser", number, key]:
                    moments[int(number)][key] = tensor
        network.load_state_dict(weights)
        optimiser.load_state_dict(optimiser.state_dict() | {"state": dict(moments)})
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return history


class Step(NamedTuple):
    """One step of the optimiser."""

    rows: Tensor
    learning_rate: float
    last: bool  # in the last phase: without dropout, with all variances of a prediction


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

    The result is the same if the run is interrupted and resumed.
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
            "seconds": before + now - begun,  # including the runs before an interruption
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
    """Entries of the history; the paper's schedule has one per :data:`PAPER_REPORT` steps."""
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
    # at least one epoch, however short the training, has all variances of a prediction
    last = max(1, round(epochs * recipe.input_fraction)) if recipe.input_fraction > 0 else 0
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed((1_000_003 * seed + epoch) % LARGEST_SEED)
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
    """Learning rate relative to its peak: it rises along a cosine, then falls along one to 0.

    Examples
    --------
    >>> one_cycle(WARMUP_SHARE)
    1.0
    """
    if share < WARMUP_SHARE:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * share / WARMUP_SHARE))
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP_SHARE) / (1 - WARMUP_SHARE)))
