"""The verbs' work: files in, the package's rooms one after the other, files out.

The command line parses words and calls these; the demo chains them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels import __version__
from xplabels.catalogue import check_catalogue
from xplabels.errors import InputError
from xplabels.output import MODEL_FILES, check_new_folder, check_output
from xplabels.selection import Selection
from xplabels.stars import Stars

if TYPE_CHECKING:
    from xplabels.archive import BadRows
    from xplabels.model import Model
    from xplabels.prediction import Prediction
    from xplabels.recipes import Recipe
    from xplabels.streaming import Summary

Say = Callable[[str], None]

DEFAULT_MODEL = "apogee-dr17-library"
"""The shipped model that ``predict`` takes when none is named."""


def read_stars(
    path: Path,
    photometry: Sequence[Path] = (),
    label_table: Path | None = None,
    names: Sequence[str] | None = None,
    bad_rows: BadRows = "error",
) -> Stars:
    """One table of stars with photometry and labels joined by source_id."""
    from xplabels import archive

    stars = archive.read([path], bad_rows=bad_rows)
    if photometry:
        from xplabels.tables import join_photometry

        stars = join_photometry(stars, list(photometry))
    if label_table is not None:
        from xplabels.tables import join_labels

        stars = join_labels(stars, label_table, names)
    return stars


def write_library(path: Path, overwrite: bool = False) -> int:
    """Write the real library as a star table; the number of its stars."""
    from xplabels.library import read_library

    return _write_made(read_library, path, overwrite)


def write_giants(path: Path, copies: int, seed: int, overwrite: bool = False) -> int:
    """Write semi-synthetic giants as a star table; their number, copies included."""
    from xplabels.giants import semi_synthetic_giants

    return _write_made(partial(semi_synthetic_giants, copies=copies, seed=seed), path, overwrite)


def _write_made(make: Callable[[], Stars], path: Path, overwrite: bool) -> int:
    from xplabels.archive.parquet import write_stars

    if path.suffix.lower() != ".parquet":
        raise InputError("a star table is Parquet", where=path, remedy="end its name in .parquet")
    check_output(path, overwrite)
    stars = make()
    write_stars(stars, path, overwrite=overwrite)
    return len(stars)


def train_model(
    stars: Stars,
    output: Path,
    labels: Sequence[str],
    recipe: Recipe,
    *,
    selection: Selection,
    seed: int,
    test_fraction: float,
    overwrite: bool,
    command: str,
    say: Say = print,
) -> Model:
    """Select, train and save; a run that was killed goes on from ``output.partial``.

    Raises
    ------
    InputError
        If the output exists, or as :func:`xplabels.training.train` says.
    """
    from xplabels.model_card import write_card
    from xplabels.training import train

    check_new_folder(output, MODEL_FILES, overwrite)
    stars, flow = selection.apply(stars)
    for line in flow:
        say(line)
    checkpoint = output.with_name(output.name + ".partial")
    model = train(
        stars,
        labels,
        recipe,
        seed=seed,
        test_fraction=test_fraction,
        checkpoint=checkpoint,
        overwrite_checkpoint=overwrite,
        name=output.name,
    )
    told = {"selection": selection.to_metadata() | {"flow": flow}, "command": command}
    model = replace(model, metadata=model.metadata | told)
    model = replace(model, card=write_card(model))
    model.save(output, overwrite=overwrite)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return model


def predict_catalogue(
    inputs: Sequence[Path],
    output: Path,
    model: Model,
    *,
    photometry: Sequence[Path] = (),
    bad_rows: BadRows = "error",
    correlations: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Summary:
    """Labels of every star in ``inputs`` as one catalogue; see :mod:`xplabels.streaming`.

    ``correlations``: with a column for each pair of labels.
    """
    from xplabels import archive
    from xplabels.stars import with_widths
    from xplabels.streaming import Settings, identity, predict_files

    def read_blocks(path: Path) -> Iterator[Stars]:
        for block in archive.read_blocks(path, bad_rows):
            # stars none of which has a band do not say how wide it would have been
            yield with_widths(block, model.feature_set.widths)

    told = {key: str(model.metadata.get(key, "")) for key in ("name", "sha256")}
    if correlations:
        told["columns"] = "correlations"
    settings = Settings(told, [identity(path) for path in photometry], bad_rows, __version__)
    check_catalogue(output, overwrite)
    tables = None
    if photometry:
        from xplabels.tables import PhotometryTables

        tables = PhotometryTables(list(photometry))
    return predict_files(
        inputs,
        output,
        _Correlated(model) if correlations else model,
        settings,
        read_blocks=read_blocks,
        photometry=tables,
        command=command,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Correlated:
    """A model whose predictions have correlations."""

    model: Model

    def predict(self, stars: Stars) -> Prediction:
        """Labels of ``stars``."""
        return self.model.predict(stars, correlations=True)


def summary_lines(summary: Summary) -> list[str]:
    """What a catalogue run did, for the terminal."""
    from xplabels.flags import MEANING

    lines = [f"{summary.stars} stars"]
    if summary.resumed:
        lines[0] += f" ({summary.resumed} input files were finished by an interrupted run)"
    for flag, text in MEANING.items():
        if count := summary.flags.get(flag.value, 0):
            lines.append(f"{count:9d}  {flag.name}: {text}")
    return lines
