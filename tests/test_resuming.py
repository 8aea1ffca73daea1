"""A training that was killed goes on as if nothing had been; its checkpoints are its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from conftest import fitted, quick, relabelled, two_label_stars, weights
from xplabels.core.errors import InputError
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.training import optimisation, train
from xplabels.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def stars() -> Stars:
    return two_label_stars()


class Killed(Exception):
    """Stands for the end of the process."""


class Epochs(logging.Handler):
    """Notes every epoch that is trained, and kills the run at one of them."""

    def __init__(self, kill: str | None = None) -> None:
        super().__init__()
        self.kill, self.seen = kill, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage().split("/")[0])
        if self.seen[-1] == self.kill:
            raise Killed


@contextmanager
def watching(kill: str | None = None) -> Iterator[list[str]]:
    """The epochs trained in the block, such as ``network: epoch 3``."""
    logger, handler = logging.getLogger(optimisation.__name__), Epochs(kill)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield handler.seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


SCHEDULES: dict[str, tuple[dict[str, Any], str]] = {
    "dropout": ({"epochs": 6, "dropout": 0.2, "missing_fraction": 0.2}, "network: epoch 4"),
    "fixed batches": (
        {"schedule": "fixed_batches", "iterations": 130, "warmup_iterations": 60,
         "batch_size": 300, "scatter": "sampling", "dropout": 0.2, "optimizer": "adam"},
        "network: epoch 3",
    ),
    "ensemble": ({"scatter": "ensemble", "members": 2}, "member-2: epoch 2"),
    "folds": ({"calibration_folds": 2}, "fold-2-network: epoch 2"),
    "distilled": (
        {"scatter": "distilled", "members": 2, "folds": 2, "teacher_hidden": (12,),
         "teacher_epochs": 3, "missing_fraction": 0.2, "auxiliary": ("bp_rp", "j_h")},
        "student: epoch 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_resumed_after_a_kill_equals_one_undisturbed(
    stars, tmp_path, monkeypatch, kind
) -> None:
    keys, killed = SCHEDULES[kind]
    recipe, folder = quick(**keys), tmp_path / "states"
    monkeypatch.setattr(optimisation, "SECONDS_BETWEEN_STATES", 0.0)
    whole = fitted(stars, recipe, seed=1)
    with pytest.raises(Killed), watching(killed):
        fitted(stars, recipe, seed=1, checkpoint=folder)
    with watching() as epochs:
        resumed = fitted(stars, recipe, seed=1, checkpoint=folder)
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    assert resumed.calibration.factor.tolist() == whole.calibration.factor.tolist()
    # it did go on where it was killed (that epoch's state was not written yet)
    assert epochs[0] == killed
    first, second = (
        {at: [(e["epoch"], e["train"], e["validation"]) for e in entries] for at, entries in h}
        for h in (m.metadata["history"].items() for m in (whole, resumed))
    )
    assert first == second
    for entries in resumed.metadata["history"].values():  # seconds of all runs count
        assert (np.diff([entry["seconds"] for entry in entries]) > 0).all()


def test_the_checkpoint_of_another_run_is_an_error(stars, tmp_path) -> None:
    folder = tmp_path / "states"
    fitted(stars, checkpoint=folder)
    values = stars.labels.values.copy()
    train_rows = np.flatnonzero(part_mask(stars.source_id, "train", 0.1))
    values[train_rows[0], 0] += 1.0
    for other, recipe, seed in (
        (stars, quick(), 1), (stars, quick(epochs=5), 0), (relabelled(stars, values), quick(), 0),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"states.*another run"):
            fitted(other, recipe, checkpoint=folder, seed=seed)
    with pytest.raises(InputError, match="another run"):
        train(stars, ["teff"], quick(), checkpoint=folder, progress=False)
    fitted(stars, checkpoint=folder)


def test_a_damaged_state_says_so(stars, tmp_path) -> None:
    fitted(stars, checkpoint=tmp_path)
    state = tmp_path / "network.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"network\.safetensors.*damaged.*remove it"):
        fitted(stars, checkpoint=tmp_path)


def test_a_folder_of_the_user_s_holds_no_checkpoints(tmp_path) -> None:
    path = tmp_path / "states"
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        Checkpoint(path, {})
    (path / "manifest.json").write_text("{}")  # matches, but the folder would be removed in the end
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"thesis\.tex.*not made here"):
            Checkpoint(path, {}, overwrite)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="file"):
        Checkpoint(tmp_path / "file", {})
