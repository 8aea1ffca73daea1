"""A training that was killed goes on as if nothing had been; its checkpoints are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import fitted, quick, relabelled, two_label_stars, weights
from xplabels import training
from xplabels.core.errors import InputError
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.recipes import Recipe
from xplabels.training import optimisation, train
from xplabels.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def stars() -> Stars:
    return two_label_stars()


class Killed(Exception):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, stage: str, epoch: int) -> None:
    def progress(
        at: str, done: int, epochs: int, train: float, validation: float, left: float
    ) -> None:
        if (at, done) == (stage, epoch):
            raise Killed

    monkeypatch.setattr(training, "silent", progress)


SCHEDULES: dict[str, tuple[dict[str, Any], str, int]] = {
    "dropout": ({"epochs": 6, "dropout": 0.2, "missing_fraction": 0.2}, "network", 4),
    "fixed batches": (
        {"schedule": "fixed_batches", "iterations": 250, "warmup_iterations": 60,
         "batch_size": 300, "scatter": "sampling", "dropout": 0.2, "optimizer": "adam"},
        "network", 5,
    ),
    "ensemble": ({"scatter": "ensemble", "members": 2}, "member-2", 2),
    "folds": ({"calibration_folds": 2}, "fold-2-network", 2),
    "distilled": (
        {"scatter": "distilled", "members": 2, "folds": 2, "teacher_hidden": (12,),
         "teacher_epochs": 3, "missing_fraction": 0.2, "auxiliary": ("bp_rp", "j_h")},
        "student", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_resumed_after_a_kill_equals_one_undisturbed(
    stars, tmp_path, monkeypatch, kind
) -> None:
    keys, stage, epoch = SCHEDULES[kind]
    recipe = quick(**keys)
    whole = fitted(stars, recipe, seed=1)
    monkeypatch.setattr(optimisation, "SECONDS_BETWEEN_STATES", 0.0)
    folder = tmp_path / "states"
    kill_after(monkeypatch, stage, epoch)
    with pytest.raises(Killed):
        fitted(stars, recipe, seed=1, checkpoint=folder)
    monkeypatch.undo()
    ran: list[tuple[str, int]] = []

    def progress(at: str, done: int, *rest: float) -> None:
        ran.append((at, done))

    monkeypatch.setattr(training, "silent", progress)
    resumed = fitted(stars, recipe, seed=1, checkpoint=folder)
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    assert resumed.calibration.factor.tolist() == whole.calibration.factor.tolist()
    # it did go on where it was killed (that epoch's state was not written yet)
    assert ran[0] == (stage, epoch)
    losses = [
        {at: [(e["epoch"], e["train"], e["validation"]) for e in entries] for at, entries in h}
        for h in (m.metadata["history"].items() for m in (whole, resumed))
    ]
    assert losses[0] == losses[1]


def test_seconds_count_over_every_run_that_was_killed(stars, tmp_path, monkeypatch) -> None:
    """Each run's clock starts at zero, and is ten seconds further on at every look."""
    monkeypatch.setattr(optimisation, "SECONDS_BETWEEN_STATES", 0.0)
    left: list[float] = []
    for killed_at in (3, 5, None):
        clock = iter(range(0, 10_000, 10))
        monkeypatch.setattr(optimisation.time, "monotonic", lambda clock=clock: next(clock))
        if killed_at is not None:
            kill_after(monkeypatch, "network", killed_at)
            with pytest.raises(Killed):
                fitted(stars, quick(epochs=6), checkpoint=tmp_path / "states")
            continue
        monkeypatch.setattr(training, "silent", lambda *told: left.append(told[-1]))
        model = fitted(stars, quick(epochs=6), checkpoint=tmp_path / "states")
    seconds = [entry["seconds"] for entry in model.metadata["history"]["network"]]
    assert len(seconds) == 6
    assert (np.diff(seconds) > 0).all()
    # the time left is judged by this run alone
    assert left[-1] == 0
    assert left[0] < 60


def test_the_checkpoint_of_another_run_is_an_error(stars, tmp_path) -> None:
    folder = tmp_path / "states"
    fitted(stars, checkpoint=folder)
    values = stars.labels.values.copy()
    train_rows = np.flatnonzero(part_mask(stars.source_id, "train", 0.1))
    values[train_rows[0], 0] += 1.0
    others: list[tuple[Stars, Recipe, dict[str, Any]]] = [
        (stars, quick(), {"seed": 1}),
        (stars, quick(epochs=5), {}),
        (stars[:650], quick(), {}),
        (relabelled(stars, values), quick(), {}),
    ]
    for other, recipe, keys in others:
        with pytest.raises(InputError, match=r"states.*another run"):
            fitted(other, recipe, checkpoint=folder, **keys)
    with pytest.raises(InputError, match="another run"):
        train(stars, ["teff"], quick(), checkpoint=folder, progress=False)
    fitted(stars, checkpoint=folder)


def test_checkpoints_can_be_removed_and_cannot_lie_in_a_file(tmp_path) -> None:
    path = tmp_path / "states"
    states = Checkpoint(path, {"a": 1})
    states.save("one", {"x": torch.arange(3)}, {"epoch": 2})
    tensors, facts = states.load("one")
    assert torch.equal(tensors["x"], torch.arange(3))
    assert facts == {"epoch": 2}
    assert states.load("two") is None
    saved = (path / "one.safetensors").read_bytes()
    (path / "one.safetensors").write_bytes(saved[:-5])
    with pytest.raises(InputError, match=r"one\.safetensors.*damaged.*remove it"):
        states.load("one")
    states.remove()
    assert not path.exists()
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        Checkpoint(path, {})
    (path / "manifest.json").write_text("{}")  # matches, but the folder would be removed in the end
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"thesis\.tex.*not made here"):
            Checkpoint(path, {}, overwrite)
    for name in ("thesis.tex", "manifest.json"):
        (path / name).unlink()
    path.rmdir()
    path.write_text("a file")
    with pytest.raises(InputError, match="states"):
        Checkpoint(path, {})
    nowhere = Checkpoint(None, {})
    nowhere.save("one", {}, {})
    assert nowhere.load("one") is None


def test_a_checkpoint_folder_is_made_where_it_is_asked_for(stars, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    fitted(stars, checkpoint=folder)
    assert (folder / "manifest.json").is_file()
