"""What a model looks at, as a folder of figures and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, PHOTOMETRY_HELP, STARS_HELP

if TYPE_CHECKING:
    from xplabels.core.stars import Stars
    from xplabels.model import Model


def add(commands: options.Commands) -> None:
    """Add the command ``explain``."""
    command = options.add_command(
        commands,
        "explain",
        "show which parts of the spectrum a model derives each label from",
        STARS_HELP,
        LABELS_HELP,
        PHOTOMETRY_HELP,
        "DIR gets a self-contained index.html, explain.json and figures: the attention to each\n"
        "input over all STARS (FS24, eq. 13); and, for the red clump (FS24, table 5) or another\n"
        "selection, derivative spectra with the full covariance of the inputs and with the\n"
        "paper's weights (eq. 14), the dependence of real and of simulated spectra on each known\n"
        "label, and the correlation of each pair of curves. It needs the extra 'library'\n"
        "(GaiaXPy).",
    )
    command.add_argument(
        "model", metavar="MODEL", help="folder of a model, or the name of a shipped one"
    )
    command.add_argument("stars", type=Path, metavar="STARS", help="star table")
    options.add_output(command, "DIR", "folder to write")
    command.add_argument(
        "--coefficients",
        type=options.positive,
        default=5,
        metavar="N",
        help="coefficients of each band in the attention figure (default 5)",
    )
    command.add_argument(
        "--extinction",
        default="none",
        metavar="TABLE|library|rjce|none",
        help="A_G, used to leave reddened stars out of the curves: a table with source_id and "
        "a_g (mag), the library's values, an estimate from H - W2 (rjce), or no cut "
        "(default)",
    )
    command.add_argument(
        "--max-extinction",
        type=options.positive_number,
        default=0.5,
        metavar="MAG",
        help="largest A_G (default 0.5)",
    )
    command.add_argument(
        "--pair",
        action="append",
        default=[],
        nargs=4,
        metavar=("LABEL", "LOW", "HIGH", "STEP"),
        help="SEDs LOW and HIGH (see xplabels simulate) of a star that differ in LABEL by STEP",
    )
    command.add_argument(
        "--emulated",
        action="store_true",
        help="add simulated differences, from emulated giants (extra 'synthetic')",
    )
    command.add_argument(
        "--star",
        type=int,
        action="append",
        default=[],
        metavar="SOURCE_ID",
        help="also write an interactive page for this star (stars/SOURCE_ID.html): its "
        "spectrum, its labels and the parts of the spectrum that they depend on; may be "
        "repeated",
    )
    command.add_argument(
        "--information",
        action="store_true",
        help="--emulated, and the smallest errors that XP spectra allow (Cramer-Rao bound, for "
        "emulated giants), compared with those reached for known giants of the model's "
        "test part (or for all, if there is no test part)",
    )
    options.add_selection(
        command, "stars for the curves, instead of the red clump, e.g. teff=4700:4800"
    )
    options.add_tables(command)
    options.add_overwrite(command)
    command.set_defaults(run=run)


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write the folder and name its pages."""
    from xplabels import __version__
    from xplabels.api import read_stars
    from xplabels.core.errors import InputError
    from xplabels.core.selection import Selection
    from xplabels.explain import FILES, explain, write_explanation
    from xplabels.explain.differences import read_extinction, read_pairs
    from xplabels.explain.star_page import star_views
    from xplabels.giants.emulator import load_emulator
    from xplabels.io.atomic import check_new_folder
    from xplabels.model import Model

    check_new_folder(args.output, FILES, args.overwrite)
    model = Model.load(args.model)
    pairs = read_pairs(args.pair, model.names)
    given = bool(args.ranges or args.complete)
    selection = Selection.of(args.ranges, model.names if args.complete else ()) if given else None
    names = tuple(dict.fromkeys((*model.names, *(selection.ranges if selection else ()))))
    stars = read_stars(
        args.stars, args.photometry, args.label_table, names, args.bad_rows, needed=False
    )
    a_g = read_extinction(args.extinction, stars)
    views = star_views(model, stars, args.star)
    name = str(model.metadata.get("name") or args.model)
    provenance = {
        "command": args.command,
        "version": f"xplabels {__version__}",
        "model": f"{name} {model.metadata.get('sha256', '')}".strip(),
        "stars": stars.origin or str(args.stars),
        "notes": "; ".join(stars.notes),
    }
    found = None
    try:
        found = explain(
            model,
            stars,
            selection=selection,
            a_g=a_g,
            max_extinction=args.max_extinction,
            emulator=load_emulator() if args.emulated or args.information else None,
            pairs=pairs,
            unseen=_unseen(model, stars) if args.information else None,
        )
    except InputError as error:
        if not views:
            raise
        # a page of one star needs no others, and few stars may be all there are
        print(f"pages of single stars only: {error}")
    pages = write_explanation(
        found,
        args.output,
        coefficients=args.coefficients,
        title=f"What {name} looks at",
        provenance=provenance,
        views=views,
        overwrite=args.overwrite,
    )
    if found is not None:
        print("\n".join(found.flow))
    for page in pages:
        print(f"Open {page}")


def _unseen(model: Model, stars: Stars) -> Stars:
    """The model's test part, or all stars where it has none here."""
    from xplabels.core.split import part_mask

    fraction = float(model.metadata["split"]["test_fraction"])
    test = part_mask(stars.source_id, "test", fraction)
    return stars[test] if test.any() else stars
