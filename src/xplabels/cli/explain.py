"""What a model looks at, as a folder of figures and numbers."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, PHOTOMETRY_HELP, STARS_HELP
from xplabels.core.errors import InputError


def add(commands: options.Commands) -> None:
    """Add the command ``explain``."""
    command = options.add_command(
        commands, "explain", run,
        "show which parts of the spectrum a model derives each label from",
        "explain model stars.parquet --output explained",
        STARS_HELP, LABELS_HELP, PHOTOMETRY_HELP,
        "DIR gets a self-contained index.html, explain.json and figures: the attention to each\n"
        "input over all STARS (FS24, eq. 13); and, for the red clump (FS24, table 5) or another\n"
        "selection, derivative spectra with the full covariance of the inputs and with the\n"
        "paper's weights (eq. 14), the dependence of real and of simulated spectra on each known\n"
        "label, and the correlation of each pair of curves. It needs the extra 'library'\n"
        "(GaiaXPy).",
    )  # fmt: skip
    options.share(command, "model")
    options.share(command, "stars", help="star table")
    options.share(command, "--output", metavar="DIR", help="folder to write")
    text = "coefficients of each band in the attention figure (default 5)"
    command.add_argument("--coefficients", type=options.positive, default=5, metavar="N", help=text)
    command.add_argument(
        "--extinction",
        default="none",
        metavar="TABLE|library|rjce|none",
        help="A_G, used to leave reddened stars out of the curves: a table with source_id and "
        "a_g (mag), the library's values, an estimate from H - W2 (rjce), or no cut "
        "(default)",
    )
    text = "largest A_G (default 0.5)"
    command.add_argument(
        "--max-extinction", type=options.positive_number, default=0.5, metavar="MAG", help=text
    )
    text = "SEDs LOW and HIGH (see xplabels simulate) of a star that differ in LABEL by STEP"
    pair = ("LABEL", "LOW", "HIGH", "STEP")
    command.add_argument("--pair", action="append", default=[], nargs=4, metavar=pair, help=text)
    text = "add simulated differences, from emulated giants (extra 'synthetic')"
    command.add_argument("--emulated", action="store_true", help=text)
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
    text = "stars for the curves, instead of the red clump, e.g. teff=4700:4800"
    options.share(command, "--range", help=text)
    options.share(command, "--complete", *options.TABLES, "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write the folder and name its pages."""
    from xplabels import __version__
    from xplabels.api import source_of
    from xplabels.api.validation import test_fraction_of
    from xplabels.core.split import part_mask
    from xplabels.explain import FILES, explain, write_explanation
    from xplabels.explain.differences import read_extinction, read_pairs
    from xplabels.explain.star_page import star_views
    from xplabels.giants.emulator import load_emulator
    from xplabels.io.atomic import check_new_folder
    from xplabels.model import Model

    check_new_folder(args.output, FILES, args.overwrite)
    model = Model.load(args.model)
    pairs = read_pairs(args.pair, model.names)
    stars, selection = options.labelled_stars(args, model)
    a_g = read_extinction(args.extinction, stars)
    views = star_views(model, stars, args.star)
    name = str(model.metadata.get("name") or args.model)
    provenance = {
        "command": args.command,
        "version": f"xplabels {__version__}",
        "model": f"{name} {model.metadata.get('sha256', '')}".strip(),
        "stars": source_of(stars),
        "notes": "; ".join(stars.notes),
    }
    unseen = None
    if args.information:  # all stars, where none is in the test part
        test = part_mask(stars.source_id, "test", test_fraction_of(model))
        unseen = stars[test] if test.any() else stars
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
            unseen=unseen,
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
