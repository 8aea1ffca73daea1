"""The verbs' work: files in, the package's rooms one after the other, files out.

The command line parses words and calls these; the demo chains them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.core.errors import InputError, counted
from xplabels.core.selection import Selection
from xplabels.core.stars import Stars
from xplabels.io.atomic import MODEL_FILES, check_new_folder, check_output
from xplabels.io.catalogue import FORMATS, check_catalogue
from xplabels.model import DEFAULT_MODEL as DEFAULT_MODEL

if TYPE_CHECKING:
    from xplabels.io import BadRows
    from xplabels.model import Model
    from xplabels.pipeline import OnDask, Summary
    from xplabels.recipes import Recipe

Say = Callable[[str], None]

DAMAGED_SHOWN = 10
"""Damaged rows named on the terminal; each has the flag ``BAD_ROW`` in the catalogue."""
MISSING_SHOWN = 10
"""Missing files named on the terminal where ``run.json`` names all of them."""


def read_stars(
    path: Path,
    photometry: Sequence[Path] = (),
    label_table: Path | None = None,
    names: Sequence[str] | None = None,
    bad_rows: BadRows = "error",
) -> Stars:
    """One table of stars with photometry and labels joined by source_id."""
    from xplabels import io as archive

    stars = archive.read([path], bad_rows=bad_rows)
    if photometry:
        from xplabels.io.tables import join_photometry

        stars = join_photometry(stars, list(photometry))
    if label_table is not None:
        from xplabels.io.tables import join_labels

        stars = join_labels(stars, label_table, names)
    return stars


def write_library(path: Path, overwrite: bool = False) -> int:
    """Write the real library as a star table; the number of its stars."""
    from xplabels.surveys.library import read_library

    return _write_made(read_library, path, overwrite)


def write_giants(path: Path, copies: int, seed: int, overwrite: bool = False) -> int:
    """Write semi-synthetic giants as a star table; their number, copies included."""
    from xplabels.giants import semi_synthetic_giants

    return _write_made(partial(semi_synthetic_giants, copies=copies, seed=seed), path, overwrite)


def check_star_table(path: Path, overwrite: bool) -> None:
    """Raise :class:`InputError` if no star table can be written there."""
    if path.suffix.lower() != ".parquet":
        raise InputError("a star table is Parquet", where=path, remedy="end its name in .parquet")
    check_output(path, overwrite)


def _write_made(make: Callable[[], Stars], path: Path, overwrite: bool) -> int:
    from xplabels.io.parquet import write_stars

    check_star_table(path, overwrite)
    stars = make()
    write_stars(stars, path, overwrite=overwrite)
    return len(stars)


def recipe_for(name_or_path: str, labels: Sequence[str]) -> Recipe:
    """The recipe with which ``labels`` are to be learnt.

    Raises
    ------
    InputError
        As :func:`~xplabels.recipes.load_recipe`; if it weighs a label that is not learnt.
    """
    from xplabels.recipes import load_recipe

    recipe = load_recipe(name_or_path)
    if strange := set(recipe.label_weights) - set(labels):
        raise InputError(
            f"label_weights names {', '.join(sorted(strange))}, which is not learnt",
            where=name_or_path,
            remedy=f"weigh any of {', '.join(labels)}, or add the label to --labels",
        )
    return recipe


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
    say: Say = print,
) -> Model:
    """Select, train and save; a run that was killed goes on from ``output.partial``.

    Raises
    ------
    InputError
        If the output exists, or as :func:`xplabels.training.train` says.
    """
    from xplabels.model.card import write_card
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
        device=device,
    )
    if model.unshrinking is not None:
        for text in model.unshrinking.caveats(model.names):
            say(f"mind: {text}")
    told = {"selection": selection.to_metadata() | {"flow": flow}, "command": command}
    model = replace(model, metadata=model.metadata | told)
    model = replace(model, card=write_card(model))
    model.save(output, overwrite=overwrite)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return model


def predict_files(
    paths: Sequence[Path],
    output: Path,
    model: Model,
    *,
    photometry: Sequence[Path] = (),
    gaia_source: Path | None = None,
    carried: Sequence[str] = (),
    bad_rows: BadRows = "error",
    correlations: bool = False,
    workers: int | OnDask = 1,
    allow_missing: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Summary:
    """Labels of every star in ``paths``, files or folders; see :mod:`xplabels.pipeline`.

    An ``output`` with an ending is one catalogue of all stars; one without, or a folder that is
    there, gets a catalogue for each file. ``correlations``: with a column for each pair of labels.
    ``allow_missing``: one catalogue may be made of a folder that lacks files its own list names,
    and a folder of catalogues be complete without them.

    Raises
    ------
    InputError
        As :func:`~xplabels.pipeline.predict_catalogue` and
        :func:`~xplabels.pipeline.predict_folder`; if one catalogue would lack files.
    """
    from xplabels.pipeline import (
        AuxiliaryTables,
        PredictOptions,
        find_inputs,
        predict_catalogue,
        predict_folder,
    )

    number = workers if isinstance(workers, int) else workers.workers
    if number < 1:
        raise InputError(f"{number} workers are none", remedy="choose 1 or more")
    one = is_catalogue(output)
    if one:
        check_catalogue(output, overwrite)
    companions = AuxiliaryTables(tuple(photometry), gaia_source, tuple(carried))
    # beside one another, catalogues should not differ by the words that asked for them
    order = PredictOptions(companions, bad_rows, correlations, {"COMMAND": command} if one else {})
    inputs = find_inputs(paths)
    if one:
        if not allow_missing:  # once it stands, the same command would not add to it
            _check_absent(inputs.absent, "no catalogue is made")
        return predict_catalogue(inputs, output, model, order, workers=workers, overwrite=overwrite)
    return predict_folder(
        inputs, output, model, order, workers=workers, overwrite=overwrite, command=command,
        allow_missing=allow_missing,
    )  # fmt: skip


def is_catalogue(output: Path) -> bool:
    """Whether ``output`` means one catalogue, not a folder of them: it ends like a file."""
    if output.suffix.lower() in FORMATS:
        return True
    return output.suffix != "" and not output.is_dir()


def summary_lines(summary: Summary) -> list[str]:
    """What a catalogue run did, for the terminal."""
    from xplabels.core.flags import MEANING
    from xplabels.pipeline.folder import again

    lines = [counted(summary.stars, "star")]
    if summary.resumed:
        files = counted(summary.resumed, "input file")
        lines[0] += f" ({files} finished by an earlier run)"
    if summary.remade:
        lines.append(again(summary.remade))
    for flag, text in MEANING.items():
        if count := summary.flags.get(str(flag.name), 0):
            lines.append(f"{count:9d}  {flag.name}: {text}")
    for file, row, star in summary.damaged[:DAMAGED_SHOWN]:
        lines.append(f"damaged: {file}, row {row}, source_id {star}")
    if len(summary.damaged) > DAMAGED_SHOWN:
        lines.append(f"damaged: {len(summary.damaged) - DAMAGED_SHOWN} rows more")
    shown = len(summary.missing) if summary.account is None else MISSING_SHOWN
    lines.extend(f"missing: {missing}" for missing in summary.missing[:shown])
    if len(summary.missing) > shown:
        lines.append(f"missing: {len(summary.missing) - shown} more (all in {summary.account})")
    return lines


def check_failures(summary: Summary, allow_missing: bool = False) -> None:
    """Raise :class:`InputError` that names every file without labels.

    Files that the list of an input folder names and that are not there are such files, too, unless
    ``allow_missing``.
    """
    if summary.failed:
        listed = "\n".join(summary.failed.values())
        raise InputError(
            f"{len(summary.failed)} of {summary.files + len(summary.failed)} files "
            f"could not be labelled{'; the others are done' if summary.files else ''}:\n{listed}"
        )
    if not allow_missing:
        _check_absent(summary.absent, "what is there is labelled")


def _check_absent(absent: Sequence[Path], so: str) -> None:
    if absent:
        raise InputError(
            f"{counted(len(absent), 'file')} that the folder's own _MD5SUM.txt lists "
            f"{'is' if len(absent) == 1 else 'are'} not there, the first {absent[0].name}; {so}",
            where=absent[0].parent,
            remedy="download what is missing and give the same command again, or add "
            "--allow-missing if only a part is wanted",
        )
