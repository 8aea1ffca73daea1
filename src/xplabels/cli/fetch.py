"""Spectra, photometry and bulk files from an archive."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli import options
from xplabels.core.errors import InputError, counted

if TYPE_CHECKING:
    from xplabels.fetch import Archive, RetryPolicy, Targets
    from xplabels.fetch.bulk import RemoteFile

STARS_TEXT = """\
stars: --ids, --cone or --query selects them. DIR gets, with one row per star, by source_id:
  xp.parquet           XP spectra (coefficients, errors, correlations): a table for train, predict
  gaia_source.parquet  positions and proper motions (deg, mas/yr), parallax (mas), G, BP, RP (mag),
                       flux over error, and quality columns: ruwe, phot_bp_rp_excess_factor,
                       numbers of transits, and of blended and contaminated ones
  tmass.parquet        2MASS, by Gaia's best neighbour: J, H, Ks (mag, Vega), ph_qual
  allwise.parquet      AllWISE, by Gaia's best neighbour: W1, W2 (mag, Vega), cc_flags, ph_qual
                       (for DR4: catwise2020.parquet)
  dr3_neighbourhood.parquet   with --ids-release dr3: the ids of both releases and the result of
                       the match for each (a table for select --neighbours)
  ids.csv              for each id and table: received, absent or failed, and why
  fetch.json           what was requested from which service
The exit status is 0 only if no id failed. Until all is complete, the data are in DIR.partial. To
resume, repeat the command: it also requests the failed ids again. An id is absent if the archive
reports that it has no data for it, and failed if no complete answer was received."""

BULK_TEXT = """\
bulk files: --bulk names a table of them (xp, gaia_source, astrophysical_parameters, or a folder
below the release's). Files are downloaded into DIR, verified against the published MD5 sums, and
interrupted downloads are resumed (NAME.partial). --ids selects the files that contain these stars,
--files those whose names match; --list prints name, MD5 sum and first and last HEALPix level-8
pixel (source_id >> 43), and downloads nothing."""

NUMBERS = (
    ("chunk", options.whole, 5000, "N", "ids per request for spectra, at most 5000"),
    ("tap-chunk", options.whole, 50_000, "N", "ids uploaded with one query"),
    ("parallel", options.whole, 2, "N", "requests for spectra, or bulk files, at a time"),
    ("attempts", options.whole, 5, "N", "attempts before a request counts as failed"),
    ("wait", float, 2.0, "S", "seconds before the second attempt, doubled each time"),
    ("timeout", float, 300.0, "S", "seconds to wait for the next byte of an answer"),
)


def add(commands: options.Commands) -> None:
    """Add the command ``fetch``."""
    command = options.add_command(
        commands, "fetch", run,
        "fetch spectra and photometry of stars, or bulk files, from the Gaia archive",
        "fetch --ids stars.csv --output spectra",
        STARS_TEXT, BULK_TEXT, "It needs the extra 'archive'.",
    )  # fmt: skip
    add_option = command.add_argument
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--ids",
        type=Path,
        metavar="TABLE",
        help="table with a column source_id, gaiaedr3_source_id (as APOGEE's allStar) or "
        "gaiadr3_source_id, or .txt: one id per line",
    )
    add_option(
        "--ids-release",
        metavar="NAME",
        help="release that the ids belong to, if it is a different one: dr3 for --release dr4 "
        "(ids with several partners, or none, are reported and not fetched)",
    )
    options.share(which, "--cone")
    text = "all sources that a query returns, by its column source_id"
    which.add_argument("--query", metavar="ADQL", help=text)
    add_option(
        "--products",
        type=options.names,
        metavar="NAMES",
        help="comma-separated list of tmass, allwise (dr4: catwise2020), xp (default all); "
        "gaia_source is always fetched",
    )
    add_option("--output", type=Path, metavar="DIR", help="folder to fill")
    text = "download bulk files of this table instead of single stars"
    add_option("--bulk", metavar="TABLE", help=text)
    add_option("--files", metavar="PATTERN", help="only bulk files whose names match (* and ?)")
    add_option("--list", action="store_true", help="list the bulk files without downloading any")
    text = "also check the MD5 sums of bulk files already in DIR"
    add_option("--verify", action="store_true", help=text)
    options.share(command, "--release", **options.ARCHIVE_RELEASE)
    options.share(command, "--tap", "--datalink")
    text = "address of the bulk files of all releases (default: ESA's Gaia archive)"
    add_option("--bulk-url", metavar="URL", help=text)
    for name, kind, default, metavar, text in NUMBERS:
        text = f"{text} (default {default:g})"
        add_option(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    options.share(command, "--overwrite")


def run(args: argparse.Namespace) -> None:
    """Fetch stars or bulk files."""
    from xplabels.fetch import RetryPolicy

    archive = options.archive(args, args.bulk_url)
    retry = RetryPolicy(attempts=args.attempts, first_wait=args.wait, timeout=args.timeout)
    if args.output is None and not args.list:
        raise InputError("no output is named", remedy="give --output DIR")
    if args.bulk is not None:
        _bulk(args, archive, retry)
    elif args.list or args.files or args.verify:
        raise InputError("--list, --files and --verify are of bulk files", remedy="give --bulk")
    else:
        _stars(args, archive, retry)


def _targets(args: argparse.Namespace, archive: Archive) -> Targets:
    from xplabels.fetch import Cone, Targets

    if args.ids is not None:
        other = args.ids_release if args.ids_release != args.release else None
        return Targets.of_file(args.ids, other or "")
    if args.ids_release is not None:
        raise InputError("--ids-release is of ids", remedy="give --ids TABLE")
    if args.cone is not None:
        return Targets.of_cone(Cone.parse(args.cone), archive.release)
    if args.query:
        return Targets(query=args.query)
    raise InputError("no stars are named", remedy="give --ids, --cone, --query or --bulk")


def _stars(args: argparse.Namespace, archive: Archive, retry: RetryPolicy) -> None:
    from xplabels.fetch import FetchSettings, fetch_stars

    targets = _targets(args, archive)
    settings = FetchSettings(retry, args.chunk, args.tap_chunk, args.parallel)
    summary = fetch_stars(targets, args.output, archive, args.products, settings, args.overwrite)
    print(summary.to_text())
    summary.check()
    if not any(counts["received"] for counts in summary.counts.values()):
        raise InputError(
            f"none of the {counted(summary.ids, 'id')} is known to the archive",
            where=args.ids,
            remedy="check of which release of Gaia they are, and that their last digits are right",
        )
    print(f"Stars: {args.output}")


def _bulk(args: argparse.Namespace, archive: Archive, retry: RetryPolicy) -> None:
    from xplabels.fetch import fetch_bulk

    files = _bulk_files(args, archive, retry)
    if args.list:
        for file in files:
            pixels = " ".join(map(str, file.pixels)) if file.pixels else "- -"
            print(f"{file.name} {file.md5} {pixels}")
        return
    summary = fetch_bulk(files, args.output, retry, args.parallel, args.verify)
    print(summary.to_text())
    if summary.failed:
        raise InputError(
            f"{counted(len(summary.failed), 'file')} failed",
            where=args.output,
            remedy="repeat the command to resume them",
        )
    print(f"Bulk files: {args.output}")


def _bulk_files(args: argparse.Namespace, archive: Archive, retry: RetryPolicy) -> list[RemoteFile]:
    from xplabels.fetch import covering, list_bulk

    if args.cone is not None or args.query is not None:
        raise InputError("bulk files are chosen by --ids or --files", remedy="leave the rest out")
    files = list_bulk(args.bulk, archive, retry)
    if args.files:
        files = [file for file in files if fnmatch(file.name, args.files)]
    if args.ids is not None and (ids := _targets(args, archive).ids) is not None:
        files = covering(files, ids)
    if not files:
        raise InputError(f"no file of {args.bulk} matches", remedy="see --list")
    return files
