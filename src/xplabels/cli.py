"""The command line: verbs named like the package's rooms; the work is done there."""

from __future__ import annotations

import argparse
import errno
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from xplabels import __version__
from xplabels.cli_help import (
    CATALOGUE_HELP,
    LABELS_HELP,
    METRICS_HELP,
    PHOTOMETRY_HELP,
    STARS_HELP,
)
from xplabels.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 on success, 2 for input or output that cannot be used, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    args.command = shlex.join(["xplabels", *words])
    try:
        args.verb(args)
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_told(error))
    except KeyboardInterrupt:
        print("xplabels: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"xplabels: error: {message}", file=sys.stderr)
    return 2


def _told(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "; make room and give the same command again",
        errno.EACCES: "; choose another folder or change its permissions",
        errno.EROFS: "; choose another folder",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}{remedy}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="xplabels",
        description="Stellar labels, with honest errors, from Gaia BP/RP spectra.",
        epilog="xplabels VERB --help tells units and columns.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xplabels {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (_add_demo, _add_library, _add_train, _add_predict, _add_validate, _add_models):
        add(verbs)
    return parser


Verbs = argparse._SubParsersAction  # the only name argparse has for it


def _verb(
    verbs: Verbs[argparse.ArgumentParser], name: str, summary: str, *paragraphs: str
) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n\n".join(paragraphs),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_demo(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "demo",
        "train on real APOGEE stars, predict stars never seen, validate, report",
        "The stars have 3200 < teff < 7000 K and all of teff, logg, fe_h, alpha_m known; a tenth\n"
        "is kept for the test. DIR gets library.parquet, model/, catalogue.fits and report/.\n"
        "A demo that was interrupted goes on when the same command is given again.",
        METRICS_HELP,
    )
    verb.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to fill")
    _add_recipe(verb)
    _add_overwrite(verb)
    verb.set_defaults(verb=_demo)


def _add_library(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "library",
        "write the real library of APOGEE stars as a star table",
        "STARS.parquet: one row a star: source_id, XP spectra as sampled flux (W m-2 nm-1, at\n"
        "336-1020 nm), photometry (mag, Vega), labels with errors. It needs the extra 'library'.",
        LABELS_HELP,
    )
    verb.add_argument(
        "--output", type=Path, required=True, metavar="STARS.parquet", help="table to write"
    )
    _add_overwrite(verb)
    verb.set_defaults(verb=_library)


def _add_train(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "train",
        "train a model on stars with known labels",
        STARS_HELP,
        LABELS_HELP,
        PHOTOMETRY_HELP,
        "MODEL is a folder: model.json, weights.safetensors, card.md. The split follows from a\n"
        "hash of source_id: u < test fraction is the test part, the next 0.1 validation, the rest\n"
        "trains. Training that was interrupted goes on when the same command is given again.",
    )
    verb.add_argument("stars", type=Path, metavar="STARS", help="star table with known labels")
    verb.add_argument("--output", type=Path, required=True, metavar="MODEL", help="folder to write")
    verb.add_argument(
        "--labels",
        type=_names,
        default=["teff", "logg", "fe_h", "alpha_m"],
        metavar="NAMES",
        help="labels to learn, with commas (default teff,logg,fe_h,alpha_m)",
    )
    _add_recipe(verb)
    verb.add_argument(
        "--test-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help="share of stars kept for the test, 0-0.8 (default 0.1; 0 where you keep your own)",
    )
    _add_selection(verb, "leave stars outside a range of a known label out, e.g. teff=3200:7000")
    _add_tables(verb)
    _add_overwrite(verb)
    verb.set_defaults(verb=_train)


def _add_predict(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "predict",
        "label the stars of archive files",
        "FILE is a Gaia XP continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv,\n"
        ".csv.gz) or a star table of this package (.parquet).",
        PHOTOMETRY_HELP,
        CATALOGUE_HELP,
        "The format follows the ending of CATALOGUE: .parquet, .fits, .ecsv, .vot or .csv. While\n"
        "a run lasts, finished files are kept in CATALOGUE.partial; a run that was interrupted\n"
        "goes on when the same command is given again.",
    )
    verb.add_argument("files", type=Path, nargs="+", metavar="FILE", help="archive file")
    verb.add_argument(
        "--output", type=Path, required=True, metavar="CATALOGUE", help="catalogue to write"
    )
    verb.add_argument(
        "--model",
        metavar="NAME|MODEL",
        help="folder of a model, or the name of one that ships (default: see xplabels models)",
    )
    _add_photometry(verb)
    _add_bad_rows(verb)
    _add_overwrite(verb)
    verb.set_defaults(verb=_predict)


def _add_validate(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "validate",
        "compare a model's labels and errors with known labels",
        STARS_HELP,
        LABELS_HELP,
        PHOTOMETRY_HELP,
        METRICS_HELP,
        "DIR gets metrics.json and one self-contained report.html. Without --all, the stars are\n"
        "the test part of the model's split; without --range and --complete, those inside the\n"
        "ranges the model was trained with.",
    )
    verb.add_argument("model", metavar="MODEL", help="folder of a model, or a shipped name")
    verb.add_argument("stars", type=Path, metavar="STARS", help="star table with known labels")
    verb.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    verb.add_argument("--all", action="store_true", help="every star, not the test part only")
    verb.add_argument(
        "--withhold-photometry",
        action="store_true",
        help="predict from the spectra alone, and judge the larger errors by twice the margins",
    )
    _add_selection(verb, "compare only stars inside a range of a known label, e.g. fe_h=:-1")
    _add_tables(verb)
    _add_overwrite(verb)
    verb.set_defaults(verb=_validate)


def _add_models(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs,
        "models",
        "list the models that ship; with a name, print its card",
        "teff is in K, the other labels in dex; the card states inputs, training set and metrics.",
    )
    verb.add_argument("name", nargs="?", metavar="NAME|MODEL", help="print this model's card")
    verb.set_defaults(verb=_models)


def _add_recipe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--recipe",
        default="default",
        metavar="default|paper|FILE.toml",
        help="network and training (default: default; paper: Fallows & Sanders 2024; distilled: "
        "as the shipped model, which costs far more)",
    )
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")


def _add_selection(verb: argparse.ArgumentParser, text: str) -> None:
    verb.add_argument(
        "--range", action="append", default=[], metavar="LABEL=LOW:HIGH", dest="ranges", help=text
    )
    verb.add_argument(
        "--complete", action="store_true", help="only stars of which every label is known"
    )


def _add_tables(verb: argparse.ArgumentParser) -> None:
    _add_photometry(verb)
    verb.add_argument(
        "--label-table",
        type=Path,
        metavar="TABLE",
        help="table of labels keyed by source_id, in place of those in STARS",
    )
    _add_bad_rows(verb)


def _add_photometry(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--photometry",
        type=Path,
        nargs="+",
        default=[],
        metavar="TABLE",
        help="tables of photometry and parallax keyed by source_id",
    )


def _add_bad_rows(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--bad-rows",
        choices=["error", "flag"],
        default="error",
        help="a damaged row stops the run (error, default) or is kept, flagged, without labels",
    )


def _add_overwrite(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _demo(args: argparse.Namespace) -> None:
    from xplabels.demo import run_demo

    report = run_demo(
        args.output,
        recipe=args.recipe,
        seed=args.seed,
        overwrite=args.overwrite,
        command=args.command,
    )
    print(f"Open {report}")


def _library(args: argparse.Namespace) -> None:
    from xplabels.workflow import write_library

    print(f"{write_library(args.output, args.overwrite)} stars: {args.output}")


def _train(args: argparse.Namespace) -> None:
    from xplabels.labels import check_names
    from xplabels.output import MODEL_FILES, check_new_folder
    from xplabels.recipes import load_recipe
    from xplabels.selection import Selection
    from xplabels.split import check_test_fraction
    from xplabels.workflow import read_stars, train_model

    names = check_names(args.labels)
    selection = Selection.of(args.ranges, names if args.complete else ())
    recipe = load_recipe(args.recipe)
    check_test_fraction(args.test_fraction)
    check_new_folder(args.output, MODEL_FILES, args.overwrite)
    # a table of labels may hold others, with sentinels: they are nobody's business here
    needed = tuple(dict.fromkeys((*names, *selection.ranges)))
    stars = read_stars(args.stars, args.photometry, args.label_table, needed, args.bad_rows)
    train_model(
        stars,
        args.output,
        names,
        recipe,
        selection=selection,
        seed=args.seed,
        test_fraction=args.test_fraction,
        overwrite=args.overwrite,
        command=args.command,
    )
    print(f"Model: {args.output}")


def _predict(args: argparse.Namespace) -> None:
    from xplabels.catalogue import check_catalogue
    from xplabels.model import Model
    from xplabels.workflow import DEFAULT_MODEL, predict_catalogue, summary_lines

    check_catalogue(args.output, args.overwrite)
    summary = predict_catalogue(
        args.files,
        args.output,
        Model.load(args.model or DEFAULT_MODEL),
        photometry=args.photometry,
        bad_rows=args.bad_rows,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)))
    print(f"Catalogue: {args.output}")


def _validate(args: argparse.Namespace) -> None:
    from xplabels.model import Model
    from xplabels.output import REPORT_FILES, check_new_folder
    from xplabels.selection import Selection
    from xplabels.workflow import read_stars, validate_model

    check_new_folder(args.output, REPORT_FILES, args.overwrite)
    model = Model.load(args.model)
    given = bool(args.ranges or args.complete)
    selection = Selection.of(args.ranges, model.names if args.complete else ()) if given else None
    stars = read_stars(args.stars, args.photometry, args.label_table, None, args.bad_rows)
    validation = validate_model(
        model,
        stars,
        args.output,
        selection=selection,
        every=args.all,
        withhold_photometry=args.withhold_photometry,
        overwrite=args.overwrite,
        command=args.command,
    )
    print(validation.to_text())
    print(f"Report: {args.output / 'report.html'}")


def _models(args: argparse.Namespace) -> None:
    from xplabels.model import Model, shipped

    if args.name is not None:
        print(Model.load(args.name).card)
        return
    for name in shipped():
        print(f"{name}: {', '.join(Model.load(name).names)}")
    print("xplabels models NAME prints a model's card.")


if __name__ == "__main__":
    sys.exit(main())
