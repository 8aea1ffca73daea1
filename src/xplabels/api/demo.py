"""The whole chain on real stars: library -> train -> predict the test part -> validate -> report.

Each step's result appears whole or not at all. Steps whose results exist, made with the same
settings, are skipped, so a demo that was killed resumes where it stopped.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from xplabels import __version__
from xplabels.api import read_stars, train_model, write_star_table
from xplabels.api.validation import reporting_stars, validate
from xplabels.core.errors import InputError
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.io.atomic import check_output, whole_file
from xplabels.io.catalogue import write_catalogue
from xplabels.recipes import Recipe, load_recipe

logger = logging.getLogger(__name__)

LABELS = ("teff", "logg", "fe_h", "alpha_m")
"""The labels of the library."""
TEST_FRACTION = 0.1
RESULTS = ("library.parquet", "model", "model.partial", "catalogue.fits", "report")
"""What the demo makes in its folder, besides its manifest ``demo.json``."""


def run_demo(
    folder: Path,
    *,
    recipe: str = "quick",
    seed: int = 0,
    overwrite: bool = False,
    command: str = "",
) -> Path:
    """Run the chain in ``folder`` and return the path of its report.

    Raises InputError if the folder holds something else and ``overwrite`` is false, if it cannot
    be written, or if the library is not installed.
    """
    from xplabels.model import Model
    from xplabels.surveys.library import read_library

    last = time.monotonic()

    def done(what: str, where: Path) -> None:
        nonlocal last
        now = time.monotonic()
        logger.info(f"[{now - last:6.1f} s] {what}: {where}")
        last = now

    chosen_recipe = load_recipe(recipe)
    open_folder(folder, demo_settings(chosen_recipe, seed), overwrite)
    path = folder / "library.parquet"
    exists = path.exists()
    if not exists:
        write_star_table(read_library, path)
    stars = read_stars(path)
    done(f"{'found' if exists else 'wrote'} the library, {len(stars)} stars", path)
    path = folder / "model"
    exists = path.is_dir()
    if not exists:
        train_model(
            stars, path, LABELS, chosen_recipe, selection=Selection(), seed=seed,
            test_fraction=TEST_FRACTION, overwrite=False, command=command,
        )  # fmt: skip
    done("found the model" if exists else "trained", path)
    model = Model.load(path)
    path = folder / "catalogue.fits"
    if not path.exists():
        test, _, _ = reporting_stars(model, stars, None, every=False)
        prediction = model.predict(test, progress=True)
        meta = {**prediction.meta, "COMMAND": command}
        write_catalogue(replace(prediction, meta=meta), path)
        done(f"predicted {len(test)} stars it has never seen", path)
    path = folder / "report"
    if not (path / "report.html").exists():
        training = stars[part_mask(stars.source_id, "train", TEST_FRACTION)].labels
        result = validate(model, stars, training_labels=training, command=command)
        result.write(path, overwrite=True)
        logger.info(str(result))
        done("validated", path)
    return path / "report.html"


def demo_settings(recipe: Recipe, seed: int) -> dict[str, Any]:
    """What a demo's results depend on, as JSON values."""
    return {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "version": __version__,
        "test_fraction": TEST_FRACTION,
    }


def open_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Resume in a folder with the same settings, or make a new one (``overwrite``: always)."""
    manifest, wanted = folder / "demo.json", json.dumps(settings, indent=1, sort_keys=True)
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", where=folder, remedy="name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if manifest.is_file() and manifest.read_text(encoding="utf-8") == wanted:
            return
        if not overwrite:
            raise InputError(
                "holds something else than a demo with these settings",
                where=folder,
                remedy="name another folder or add --overwrite",
            )
        for name in RESULTS:  # only what a demo makes: the folder may hold the user's own files
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    check_output(folder, overwrite=True)
    folder.mkdir(exist_ok=True)
    with whole_file(manifest, overwrite=True) as temporary:
        temporary.write_text(wanted, encoding="utf-8")
