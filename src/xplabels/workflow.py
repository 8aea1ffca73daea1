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
from xplabels.errors import InputError, located
from xplabels.labels import Labels
from xplabels.output import MODEL_FILES, REPORT_FILES, check_new_folder, check_output
from xplabels.selection import Selection
from xplabels.split import part_mask
from xplabels.stars import Photometry, Stars

if TYPE_CHECKING:
    from xplabels.archive import BadRows
    from xplabels.model import Model
    from xplabels.prediction import Prediction
    from xplabels.recipes import Recipe
    from xplabels.streaming import Summary
    from xplabels.validation import Validation

Say = Callable[[str], None]

DEFAULT_MODEL = "apogee-dr17-library"
"""The shipped model that ``predict`` takes when none is named."""

WITHHELD_MARGIN = 2.0
"""Tolerances on calibration are this many times wider where photometry is withheld."""


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


def test_fraction_of(model: Model) -> float:
    """The share of stars that the model's split keeps for testing."""
    return float(model.metadata["split"]["test_fraction"])


def reporting_stars(
    model: Model, stars: Stars, selection: Selection | None, every: bool
) -> tuple[Stars, Labels, list[str]]:
    """The stars to validate on, their known labels, and the cut flow.

    Parameters
    ----------
    model
        Its split names the test part; its own selection holds where none is given.
    stars
        With known labels.
    selection
        Cuts on the known labels; None: those the model was trained with.
    every
        Take all stars, not the test part only.

    Raises
    ------
    InputError
        If the stars have no labels, the model kept no test part or none of it is here.
    """
    if selection is None:
        told = Selection.from_metadata(model.metadata.get("selection", {}))
        # a table with fewer labels than the training set is cut by those it has
        here = _labels(stars).names
        selection = Selection(
            {name: bounds for name, bounds in told.ranges.items() if name in here},
            tuple(name for name in told.complete if name in here),
        )
    chosen, flow = selection.apply(stars)
    if every:
        return chosen, _labels(chosen), flow
    fraction = test_fraction_of(model)
    test = part_mask(chosen.source_id, "test", fraction)
    if not test.any():
        raise InputError(
            f"no star is in the model's test part (test fraction {fraction:g})",
            where=stars.where,
            remedy="add --all if the model has not seen these stars",
        )
    chosen = chosen[test]
    return chosen, _labels(chosen), [*flow, f"{len(chosen)} in the model's test part"]


def _labels(stars: Stars) -> Labels:
    if stars.labels is None:
        raise InputError(
            "has no known labels to compare with",
            where=stars.where,
            remedy="add columns such as teff and teff_err, or --label-table TABLE",
        )
    return stars.labels


def validate_model(
    model: Model,
    stars: Stars,
    output: Path,
    *,
    selection: Selection | None = None,
    every: bool = False,
    withhold_photometry: bool = False,
    training_labels: Labels | None = None,
    overwrite: bool = False,
    command: str = "",
    say: Say = print,
) -> Validation:
    """Predict, compare with the known labels and write ``metrics.json`` and ``report.html``.

    ``withhold_photometry`` predicts from the spectra alone, and doubles the tolerances on
    calibration; magnitudes still make the bins.
    ``training_labels``, where the caller has them, are drawn behind the errors.

    Raises
    ------
    InputError
        See :func:`reporting_stars`; if the output exists and ``overwrite`` is false.
    """
    from xplabels.report import write_report
    from xplabels.validation import validate

    check_new_folder(output, REPORT_FILES, overwrite)
    stars, labels, flow = reporting_stars(model, stars, selection, every)
    for line in flow:
        say(line)
    shown = stars
    if withhold_photometry:
        shown = stars.with_photometry(Photometry.missing(len(stars)))
        flow = [*flow, "photometry withheld"]
    prediction = model.predict(shown, progress=True, correlations=True)
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    with located(stars.where):
        validation = validate(
            prediction,
            labels,
            g_mag=g,
            bp_rp=bp - rp,
            selection_text="; ".join(flow),
            margin=WITHHELD_MARGIN if withhold_photometry else 1.0,
        )
    write_report(
        output,
        validation,
        prediction,
        model_card=model.card,
        provenance={
            "command": command,
            "version": __version__,
            "data": stars.origin,
            "notes": "; ".join(stars.notes),
            "training": model.metadata["training"],
        },
        training_labels=training_labels,
        overwrite=overwrite,
    )
    return validation


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
