"""The whole chain on real stars: library -> train -> predict the test part -> validate -> report.

Each step's result appears whole or not at all, so that a demo that was killed goes on where it
stopped: a step whose result is there, under the same settings, is skipped.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels import __version__
from xplabels.api import Say, read_stars, train_model, write_library
from xplabels.api.validation import reporting_stars, validate
from xplabels.core.errors import InputError
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.io.atomic import check_output, whole_file
from xplabels.io.catalogue import write_catalogue
from xplabels.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from xplabels.model import Model

LABELS = ("teff", "logg", "fe_h", "alpha_m")
"""The labels of the library."""

SELECTION = Selection({"teff": (3200.0, 7000.0)}, LABELS)
"""The demo's stars: APOGEE's labels are good between these temperatures, and all four known."""

TEST_FRACTION = 0.1

RESULTS = ("library.parquet", "model", "model.partial", "catalogue.fits", "report")
"""What the demo makes in its folder, beside its manifest."""


@dataclass(frozen=True)
class Settings:
    """What a demo's results depend on; kept as ``demo.json``."""

    recipe: Recipe
    seed: int
    version: str = __version__

    def to_json(self) -> str:
        """The manifest."""
        told = {
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "version": self.version,
            "test_fraction": TEST_FRACTION,
            "selection": SELECTION.to_metadata(),
        }
        return json.dumps(told, indent=1, sort_keys=True)


def run_demo(
    folder: Path,
    *,
    recipe: str = "quick",
    seed: int = 0,
    overwrite: bool = False,
    command: str = "",
    say: Say = print,
) -> Path:
    """Run the chain in ``folder`` and return the path of its report.

    Raises
    ------
    InputError
        If the folder holds something else and ``overwrite`` is false, if it cannot be written, or
        if the library is not installed.
    """
    steps = Steps(folder, command, say)
    chosen = load_recipe(recipe)
    open_folder(folder, Settings(chosen, seed), overwrite)
    stars = steps.library()
    if not (folder / "model").is_dir():
        train_model(
            stars,
            folder / "model",
            LABELS,
            chosen,
            selection=SELECTION,
            seed=seed,
            test_fraction=TEST_FRACTION,
            overwrite=False,
            command=command,
            say=say,
        )
        steps.done("trained", folder / "model")
    else:
        steps.done("found the model", folder / "model")
    from xplabels.model import Model

    model = Model.load(folder / "model")
    steps.catalogue(model, stars)
    return steps.report(model, stars)


def open_folder(folder: Path, settings: Settings, overwrite: bool) -> None:
    """Go on in a folder with the same settings; make it, or make it anew with ``overwrite``."""
    manifest, wanted = folder / "demo.json", settings.to_json()
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", where=folder, remedy="name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if manifest.is_file() and manifest.read_text() == wanted:
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
        temporary.write_text(wanted)


class Steps:
    """The steps around training: each looks for its result, or makes it and says so."""

    def __init__(self, folder: Path, command: str, say: Say) -> None:
        self.folder, self.command, self.say = folder, command, say
        self._last = time.monotonic()

    def done(self, what: str, where: Path) -> None:
        """Say what was made, where, and in how many seconds."""
        now = time.monotonic()
        self.say(f"[{now - self._last:6.1f} s] {what}: {where}")
        self._last = now

    def library(self) -> Stars:
        """The real stars, as a star table in the folder."""
        path = self.folder / "library.parquet"
        if path.exists():
            stars = read_stars(path)
            self.done(f"found the library, {len(stars)} stars", path)
            return stars
        write_library(path)
        stars = read_stars(path)
        self.done(f"wrote the library, {len(stars)} stars", path)
        return stars

    def catalogue(self, model: Model, stars: Stars) -> None:
        """Labels of the test part, which the network has never seen."""
        path = self.folder / "catalogue.fits"
        if path.exists():
            return
        test, _, _ = reporting_stars(model, stars, SELECTION, every=False)
        prediction = model.predict(test, progress=True)
        meta = {**prediction.meta, "COMMAND": self.command}
        write_catalogue(replace(prediction, meta=meta), path)
        self.done(f"predicted {len(test)} stars it has never seen", path)

    def report(self, model: Model, stars: Stars) -> Path:
        """Whether labels and error bars are right: numbers, figures, a page."""
        folder = self.folder / "report"
        if not (folder / "report.html").exists():
            chosen, _ = SELECTION.apply(stars)
            training = part_mask(chosen.source_id, "train", TEST_FRACTION)
            result = validate(
                model,
                stars,
                selection=SELECTION,
                training_labels=chosen[training].labels,
                command=self.command,
            )
            result.write(folder, overwrite=True)
            self.say(str(result))
            self.done("validated", folder)
        return folder / "report.html"
