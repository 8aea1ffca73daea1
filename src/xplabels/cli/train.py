"""Stars with known labels to a model."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, PHOTOMETRY_HELP, STARS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``train``."""
    command = options.add_command(
        commands, "train", run,
        "train a model on stars with known labels",
        "train stars.parquet --labels teff,logg,fe_h --output model",
        STARS_HELP, LABELS_HELP, PHOTOMETRY_HELP,
        "MODEL is a folder: model.json, weights.safetensors, card.md. The split is set by a hash\n"
        "u of source_id, from 0 to 1: stars with u below the test fraction are the test part,\n"
        "the next 0.1 the validation part, the rest the training part. To resume an interrupted\n"
        "training, repeat the command.",
    )  # fmt: skip
    options.share(command, "stars")
    options.share(command, "--output", metavar="MODEL", help="folder to write")
    command.add_argument(
        "--labels",
        type=options.names,
        default=["teff", "logg", "fe_h", "alpha_m"],
        metavar="NAMES",
        help="labels to learn, with commas (default teff,logg,fe_h,alpha_m)",
    )
    options.share(command, "--recipe", "--seed")
    command.add_argument(
        "--test-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help="share of stars set aside for testing, 0-0.8 (default 0.1; use 0 if you keep test "
        "stars of your own)",
    )
    text = "device to train on (default cpu); results depend on it in their last digits"
    command.add_argument("--device", default="cpu", metavar="cpu|cuda", help=text)
    text = "leave out stars outside a range of a known label, e.g. teff=3200:7000"
    options.share(command, "--range", help=text)
    options.share(command, "--complete", *options.TABLES, "--release", "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Check what can be checked before the stars are read, then train and save."""
    from xplabels.api import read_stars, train_model
    from xplabels.core.labels import check_names
    from xplabels.core.selection import Selection
    from xplabels.core.split import check_test_fraction
    from xplabels.io.atomic import MODEL_FILES, check_new_folder
    from xplabels.network import check_device
    from xplabels.recipes import check_learnt, load_recipe

    names = check_names(args.labels)
    selection = Selection.of(args.ranges, names if args.complete else ())
    recipe = load_recipe(args.recipe)
    check_learnt(recipe, names, args.recipe)
    check_test_fraction(args.test_fraction)
    check_device(args.device)
    check_new_folder(args.output, MODEL_FILES, args.overwrite)
    # a table of labels may hold others, whose sentinels do not matter here
    needed = tuple(dict.fromkeys((*names, *selection.ranges)))
    stars = read_stars(args.stars, args.photometry, args.label_table, needed, args.bad_rows)
    train_model(
        stars, args.output, names, recipe, selection=selection, seed=args.seed,
        test_fraction=args.test_fraction, overwrite=args.overwrite, command=args.command,
        device=args.device,
    )  # fmt: skip
    print(f"Model: {args.output}")
