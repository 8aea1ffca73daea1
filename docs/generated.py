"""Parts of pages that repeat what code or measurements say: written by ``conf.py``, included."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
WORDS = {"teff": "$T_\\mathrm{eff}$ (K)", "logg": "$\\log g$", "fe_h": "[Fe/H]",
         "c_fe": "[C/Fe]", "n_fe": "[N/Fe]", "alpha_m": "[α/M]"}  # fmt: skip


PM = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def results(name: str) -> Any:
    """What a benchmark found."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def size(label: str, value: float) -> str:
    """A scatter with sensible digits: K to 0.1 below 100, dex to 0.001."""
    if label == "teff":
        return f"{value:.0f}" if value >= 59.5 else f"{value:.1f}"
    return f"{value:.3f}" if value >= 0.0995 else f"{value:.4f}"


def share(value: float | None) -> str:
    """A fraction as per cent."""
    return "" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def command_line() -> str:
    """Every command's help, in the order of ``xplabels --help``."""
    from xplabels.cli import build_parser

    parser = build_parser()
    (commands,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    pages = [f"```text\n{parser.format_help()}```"]
    pages += [
        f"## `xplabels {name}`\n\n```text\n{command.format_help()}```"
        for name, command in commands.choices.items()
    ]
    return "\n\n".join(pages)


def accuracy(case: str = "with photometry") -> str:
    """Scores of the shipped model by label."""
    found = results("shipped")[case]["metrics"]["labels"]
    head = ("label", "N", "RMSE", "robust scatter", "bias", "slope", "in 68.3 %", "in 95.4 %",
            "robust std of z", "std of z", "CRPS")  # fmt: skip
    return table(
        head,
        [
            (
                WORDS[name], f"{s['n']:,}",
                f"{size(name, s['rmse'])}{PM}{size(name, s['error_of']['rmse'])}",
                f"{size(name, s['robust'])}{PM}{size(name, s['error_of']['robust'])}",
                f"{s['bias']:.2g}", f"{s['slope']:.3f}",
                share(s["coverage_68"]), share(s["coverage_95"]),
                f"{s['robust_std_z']:.2f}", f"{s['std_z']:.2f}", size(name, s["crps"]),
            )
            for name, s in found.items()
        ],
    )  # fmt: skip


def without_photometry() -> str:
    """The same, photometry withheld."""
    return accuracy("photometry withheld")


def rightly_labelled() -> str:
    """RMSE with and without the stars whose known label is probably wrong, or of large error."""
    found = results("shipped")
    metrics, certain = found["with photometry"]["metrics"], found["without_large_errors"]
    every, right = metrics["labels"], metrics["rightly_labelled"]["labels"]
    return table(
        ("RMSE", *(WORDS[name] for name in every)),
        [
            (f"all {metrics['n']:,} stars", *(size(n, s["rmse"]) for n, s in every.items())),
            (
                f"without the {metrics['n'] - metrics['rightly_labelled']['n']} whose label is "
                "probably wrong",
                *(size(name, right[name]["rmse"]) for name in every),
            ),
            (
                f"without the {certain['left_out']} with `teff_error` of "
                f"{certain['teff_error_below']:.0f} K or more",
                *(size(name, certain["rmse"][name]) for name in every),
            ),
        ],
    )


def by_magnitude() -> str:
    """Robust scatter and coverage in bins of G, of at least 50 stars."""
    bins = results("shipped")["with photometry"]["metrics"]["bins"]["g_mag"]
    names = list(bins)
    rows = []
    for ones in zip(*bins.values(), strict=True):
        if ones[0]["n"] >= 50:
            cells = [f"{size(n, b['robust'])} ({share(b['coverage_68'])})"
                     for n, b in zip(names, ones, strict=True)]  # fmt: skip
            rows.append((f"{ones[0]['low']:g}-{ones[0]['high']:g}", ones[0]["n"], *cells))
    return table(("$G$", "N", *(WORDS[name] for name in names)), rows)


def by_temperature() -> str:
    """All stars of the test part by known Teff."""

    def rows() -> Iterator[tuple[object, ...]]:
        for one in results("shipped")["teff_bins"]:
            low, high = one["teff_range"]
            teff, logg = one["labels"]["teff"], one["labels"]["logg"]
            yield (
                f"> {low}" if high >= 1e5 else f"{low}-{high}" if low else f"< {high}",
                f"{one['n']:,}", share(one["flagged"]["share"]),
                f"{teff['robust']:.0f} ({100 * teff['relative']:.1f} %)", f"{teff['stated']:.0f}",
                share(teff["inside_68"]["share"]), share(teff["inside_95"]["share"]),
                f"{logg['robust']:.2f}" if logg["n"] else "",
                ", ".join(str(count) for count in one["finite"].values()),
            )  # fmt: skip

    finite = ", ".join(WORDS[name] for name in results("shipped")["teff_bins"][0]["finite"])
    head = ("$T_\\mathrm{eff}$ in APOGEE (K)", "N", "flagged", "robust scatter (K)",
            "stated error (K)", "in 68.3 %", "in 95.4 %", "$\\log g$ robust",
            f"finite {finite}")  # fmt: skip
    return table(head, rows())


def verdict() -> str:
    """What ``validate`` says of the errors."""
    found = results("shipped")["with photometry"]["metrics"]["verdict"]
    lines = "\n".join([f"The errors are {found['headline']}:", *found["lines"]])
    return f"```text\n{lines}\n```"


def speed() -> str:
    """Processor time per star, one core."""
    what = {
        "reader": "reading bulk files, with covariances",
        "kernels": "the paper's network, with all variances",
        "shipped": "the shipped model",
    }
    found = results("speed")
    return table(
        ("what", "how", "µs per star", "times faster"),
        [
            (
                words if n == 0 else "",
                how,
                f"{one['us_per_star']:,.4g}",
                f"{one['times_reference']:.3g}",
            )
            for key, words in what.items()
            for n, (how, one) in enumerate(found[key]["contestants"].items())
        ],
    )


def sky() -> str:
    """From ``.csv.gz`` to a catalogue."""
    found = results("speed")["sky"]
    return table(
        ("from `.csv.gz` to catalogue, MD5 sums included", ""),
        [
            ("processor time per star", f"{found['us_per_star']} µs"),
            ("core-hours for the 219,197,643 stars of DR3", found["core_hours_for_the_sky"]),
            ("peak memory", f"{found['peak_memory_mib']} MiB"),
            ("two workers, relative to one", found["two_workers_over_one"]),
        ],
    )


def matching() -> str:
    """Matching on the sky."""
    found = results("sky_matching")
    rows = {"all": "all stars", "fast": "faster than 0.1 arcsec/yr",
            "fast_without_motion": "faster than 0.1 arcsec/yr, not moved to the epoch"}  # fmt: skip
    return table(
        ("", "completeness", "purity", "N with a source"),
        [
            (words, *(share(found[key][score]) for score in ("completeness", "purity")),
             f"{found[key]['stars_with_source']:,}")
            for key, words in rows.items()
        ],
    )  # fmt: skip


def baseline() -> str:
    """XGBoost on the same stars, inputs and split."""
    ours = results("shipped")["with photometry"]["metrics"]["labels"]
    theirs = results("baseline")["xgboost"]["labels"]
    return table(
        ("", *(WORDS[name] for name in ours)),
        [
            (f"{who}, {score}", *(size(n, found[n][key]) for n in ours))
            for score, key in (("RMSE", "rmse"), ("robust scatter", "robust"))
            for who, found in (("`xplabels`", ours), ("XGBoost", theirs))
        ],
    )


def catalogue_columns() -> str:
    """The columns of a catalogue, as its own metadata describe them."""
    from xplabels import example_stars, load_model

    prediction = load_model().predict(example_stars(3), covariance=True)
    rows = []
    for field in prediction.to_arrow().schema:
        about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        rows.append((f"`{field.name}`", f"{field.type}", about.get("unit", ""),
                     f"`{about['ucd']}`" if about.get("ucd") else "",
                     about.get("description", "").partition(": 1 ")[0]))  # fmt: skip
    return table(("column", "type", "unit", "UCD", "meaning"), rows)


def labels() -> str:
    """The labels known to the package."""
    from xplabels import LABELS

    return table(
        ("name", "unit", "UCD", "meaning", "plausible range"),
        [
            (
                f"`{name}`",
                one.unit,
                f"`{one.ucd}`",
                one.description,
                f"{one.lowest:g} to {one.highest:g}",
            )
            for name, one in LABELS.items()
        ],
    )  # fmt: skip


PARTS = (
    command_line, accuracy, without_photometry, rightly_labelled, by_magnitude, by_temperature,
    verdict, speed, sky, matching, baseline, catalogue_columns, labels,
)  # fmt: skip


def write(folder: Path) -> None:
    """Write every part into ``folder``."""
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        (folder / f"{part.__name__}.md").write_text(part() + "\n", encoding="utf-8")
