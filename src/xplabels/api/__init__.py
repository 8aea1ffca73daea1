"""The steps behind each command, from files to files.

The command line parses its arguments and calls these functions, and so does the demo.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels.core.errors import InputError
from xplabels.core.selection import Selection
from xplabels.core.stars import Stars
from xplabels.io.atomic import MODEL_FILES, check_distinct, check_new_folder, check_parquet, discard
from xplabels.io.catalogue import FORMATS, check_catalogue
from xplabels.model import DEFAULT_MODEL as DEFAULT_MODEL

if TYPE_CHECKING:
    from xplabels.io import BadRows
    from xplabels.model import Model
    from xplabels.pipeline import OnDask, Summary
    from xplabels.recipes import Recipe
    from xplabels.sky.area import Area

logger = logging.getLogger(__name__)


def read_stars(
    path: Path,
    photometry: Sequence[Path] = (),
    label_table: Path | None = None,
    names: Sequence[str] | None = None,
    bad_rows: BadRows = "error",
    needed: bool = True,
) -> Stars:
    """One table of stars with photometry and labels joined by source_id.

    ``names`` are the labels to take, also from columns of ``path`` itself; with ``needed``, it is
    an error if one of them is absent.
    """
    from xplabels import io as archive
    from xplabels.io.plain import is_table

    stars = archive.read([path], bad_rows=bad_rows)
    if photometry:
        from xplabels.io.tables import join_photometry

        stars = join_photometry(stars, list(photometry))
    known = () if stars.labels is None else stars.labels.names
    if label_table is None and not set(names or ()) <= set(known) and is_table(path):
        label_table = path
    if label_table is not None:
        from xplabels.io.tables import join_labels
        from xplabels.surveys import SPECTROSCOPIC, join_survey

        survey, _, table = str(label_table).partition("=")
        if survey in SPECTROSCOPIC and table:
            stars = join_survey(stars, survey, table, names)
        else:
            before, stars = stars.notes, join_labels(stars, label_table, names, needed)
            if label_table == path:  # not a join of two tables, so its counts say nothing
                notes = tuple(n for n in stars.notes if not n.endswith("not in this table"))
                stars = replace(stars, notes=(*before, *notes[len(before) :]))
    for note in stars.notes:
        # columns of the table of stars itself were joined to all of them
        if note.endswith("not in this table") and not note.startswith(f"{path}: "):
            logger.info(note)
    return stars


def source_of(stars: Stars) -> str:
    """The name of the stars in cards and reports: their table, and its own statement of origin.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from xplabels.synthetic import example_stars
    >>> source_of(replace(example_stars(3), file="some/mine.parquet"))
    'mine.parquet, from simulated stars'
    """
    if stars.file in ("", stars.origin):
        return stars.origin
    return ", from ".join(filter(None, (Path(stars.file).name, stars.origin)))


def write_star_table(make: Callable[[], Stars], path: Path, overwrite: bool = False) -> int:
    """Check that the table can be written, make the stars and write them; returns their number."""
    from xplabels.io.parquet import write_stars

    check_parquet(path, overwrite)
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
    device: str = "cpu",
) -> Model:
    """Select stars, train and save a model; a run that was killed resumes from ``output.partial``.

    Raises InputError if the output exists, or as :func:`xplabels.training.train`.
    """
    from xplabels.model.card import write_card
    from xplabels.training import train

    check_new_folder(output, MODEL_FILES, overwrite)
    stars, flow = selection.apply(replace(stars, origin=source_of(stars)))
    for line in flow:
        logger.info(line)
    checkpoint = output.with_name(output.name + ".partial")
    model = train(
        stars, labels, recipe, seed=seed, test_fraction=test_fraction, checkpoint=checkpoint,
        overwrite_checkpoint=overwrite, name=output.name, device=device,
    )  # fmt: skip
    if model.unshrinking is not None:
        for text in model.unshrinking.caveats(model.names):
            logger.info(f"warning: {text}")
    provenance = {"selection": selection.to_metadata() | {"flow": flow}, "command": command}
    model = replace(model, metadata=model.metadata | provenance)
    model = replace(model, card=write_card(model))
    model.save(output, overwrite=overwrite)
    discard(checkpoint, output)
    return model


def predict_files(
    paths: Sequence[Path | str],
    output: Path,
    model: Model,
    *,
    area: Area | None = None,
    photometry: Sequence[Path] = (),
    gaia_source: Path | None = None,
    carried: Sequence[str] = (),
    bad_rows: BadRows = "error",
    correlations: bool = False,
    coefficients: str | None = None,
    workers: int | OnDask = 1,
    allow_missing: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Summary:
    """Labels of every star in ``paths``, files or folders; see :mod:`xplabels.pipeline`.

    An ``output`` with an ending is one catalogue of all stars; one without, or an existing folder,
    is a folder with a catalogue for each file. ``correlations`` adds a column for each pair of
    labels. ``coefficients`` is that of :func:`xplabels.read_blocks`. With ``allow_missing``, a
    folder of input may lack files that its own list names.
    With an ``area`` the only path is a HATS catalogue, local or at an address, of which that part
    is labelled; its rows are kept in ``OUTPUT.spectra`` until the catalogue is complete (beside a
    folder of catalogues they are kept for good).
    Raises InputError as :func:`~xplabels.sky.area.copy_area`,
    :func:`~xplabels.pipeline.predict_catalogue` and :func:`~xplabels.pipeline.predict_folder`.

    Examples
    --------
    >>> import xplabels as xp
    >>> from pathlib import Path
    >>> xp.write_stars(xp.example_stars(3), "stars.parquet")
    >>> summary = xp.predict_files([Path("stars.parquet")], Path("labels.fits"), xp.load_model())
    >>> summary.stars
    3
    """
    from xplabels import pipeline

    number = workers if isinstance(workers, int) else workers.workers
    if number < 1:
        raise InputError(f"{number} workers are none", remedy="choose 1 or more")
    source = () if gaia_source is None else (gaia_source,)
    check_distinct([output], (*paths, *photometry, *source), replaced=False)
    # not in a folder, whose catalogues should not depend on the command that made them
    single = output.suffix.lower() in FORMATS or (output.suffix != "" and not output.is_dir())
    metadata = {"COMMAND": command} if single else {}
    if area is not None:
        if single:
            check_catalogue(output, overwrite)
            metadata["SPECTRA"] = f"{paths[0]}, {area}"
        spectra = output.with_name(f"{output.name}.spectra")
        paths = _area_of(paths, area, spectra, overwrite)
        if carried:  # columns such as ra and dec may be carried from the catalogue itself
            photometry = (*map(Path, paths), *photometry)
    elif remote := [str(path) for path in paths if "://" in str(path)]:
        raise InputError(
            "is an address: only a part of the sky is read from there",
            where=remote[0],
            remedy="add --cone RA,DEC,RADIUS, --box or --pixel, or copy the catalogue",
        )
    carry = tuple(dict.fromkeys(name.lower() for name in carried))
    tables = pipeline.AuxiliaryTables(tuple(photometry), gaia_source, carry)
    inputs = pipeline.find_inputs([Path(path) for path in paths])
    run_options: dict[str, Any] = {
        "workers": workers, "overwrite": overwrite, "allow_missing": allow_missing,
    }  # fmt: skip
    options = pipeline.PredictOptions(tables, bad_rows, correlations, metadata, coefficients)
    if single:
        summary = pipeline.predict_catalogue(inputs, output, model, options, **run_options)
        if area is not None:
            discard(spectra, output)
        return summary
    return pipeline.predict_folder(inputs, output, model, options, command=command, **run_options)


def _area_of(
    paths: Sequence[Path | str], area: Area, spectra: Path, overwrite: bool
) -> list[Path | str]:
    """Copy the rows of one catalogue inside ``area`` to files in the folder ``spectra``."""
    from xplabels.sky.area import copy_area

    if len(paths) != 1:
        raise InputError(
            f"a part of the sky is of one HATS catalogue, not of {len(paths)} inputs",
            remedy="give its folder or address",
        )
    return [*copy_area(str(paths[0]), area, spectra, overwrite)]
