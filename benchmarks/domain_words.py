"""The results of benchmarks/domain.py as tables: all for the docs, a short one for a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import markdown_table

MARKS = ("<!-- tables of benchmarks/domain.py: begin -->", "<!-- end -->")
SHORT = (13.0, 15.0, 17.0, 18.5)
GROUPED = "binary, light ratio "
NAMES = {"OUT_OF_DOMAIN": "domain", "POOR_FIT": "fit", "LABEL_OUT_OF_RANGE": "range"}

Row = dict[str, Any]


def per_cent(one: Row | None, interval: bool = False) -> str:
    """A share in per cent, "" where there is none."""
    if one is None or one["share"] is None:
        return ""
    text = _digits(100 * one["share"])
    if interval:
        low, high = (_digits(100 * edge) for edge in one["interval"])
        text += f" ({low}-{high})"
    return text


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def where(g: Any) -> str:
    """A magnitude, a range of them, or all."""
    if g is None:
        return "as observed"
    if not isinstance(g, list):
        return f"{g:g}"
    low, high = g
    if not low:
        return f"< {high:g}"
    return f"{low:g}-{high:g}" if high < 20 else f"> {low:g}"


def which(flags: dict[str, float]) -> str:
    """The flags of a class, the most frequent first."""
    shares = sorted(flags.items(), key=lambda item: -item[1])
    return ", ".join(f"{NAMES.get(n, n)} {_digits(100 * s)}" for n, s in shares if s >= 0.0005)


def middle(three: list[float] | None) -> str:
    """The median of three percentiles."""
    return "" if three is None else f"{three[1]:.0f}"


def spread(three: list[float] | None) -> str:
    """The 16th to 84th percentile."""
    return "" if three is None else f"{three[0]:.0f}-{three[2]:.0f}"


def compact(results: Row, before: Row | None = None) -> str:
    """One line a class: flagged, or flagged or right, at four magnitudes; for a card."""
    head = ("class", "sources", "N", *(f"G {g:g}" for g in SHORT),
            "not flagged and 5 sigma off, G 15", "flags at G 15")  # fmt: skip
    lines = []
    for name, rows in by_class(results["classes"]).items():
        if name.startswith(GROUPED):
            continue
        at = {one["g"]: one for one in rows if not isinstance(one["g"], list)}
        one = at.get(15.0) or at[None]
        cells = [share_of(at.get(g)) for g in SHORT]
        if not any(cells):  # a real class: as observed
            cells = [share_of(one), *[""] * (len(SHORT) - 1)]
            name += " (all magnitudes)"
        wrong = per_cent(one.get("not_flagged_5_sigma"))
        lines.append((name, one["kind"], f"{one['n']:,}", *cells, wrong, which(one["flags"])))
    text = (
        "Of each class the share, in %, that is flagged (not `good`) or right (Teff within 5 "
        "stated errors), or, where there is no true Teff, flagged; at four magnitudes. Library "
        f"stars are those of the {results['part']} part, unseen by the networks. Of ordinary "
        "stars: the share with a fit or domain flag, which should be small.\n\n"
    )
    return text + markdown_table(head, lines)


def share_of(one: Row | None) -> str:
    """What counts of a class: flagged, of ordinary stars; else flagged or right."""
    if one is None:
        return ""
    if one["class"].startswith("ordinary"):
        return per_cent(one["fit_or_domain"])
    return per_cent(one.get("flagged_or_right") or one["flagged"])


def by_class(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their class, in order."""
    found: dict[str, list[Row]] = {}
    for one in rows:
        found.setdefault(one["class"], []).append(one)
    return found


def markdown(results: Row, before: Row | None = None) -> str:
    """All tables."""
    model = results["model"]
    parts = [
        f"Model `{model['name']}` ({str(model['sha256'])[:12]}), library stars of the "
        f"{results['part']} part, seed {results['seed']}: "
        f"`python benchmarks/domain.py --part {results['part']}`, {results['seconds']:.0f} s. "
        "Shares are in %, in brackets their 95 % intervals."
        + ("" if before is None else f" In *italics*: an earlier version of the model "
           f"({str(before['model']['sha256'])[:12]}), on the same sources.")
        + "\n",
        "### False positives: ordinary stars\n\n" + false_positives(results, before),
        "### Library stars by temperature\n\n" + teff_bins(results, before),
        "### Strange sources\n\n" + classes(results, before),
    ]  # fmt: skip
    if "field" in results:
        parts.append("### Real field stars\n\n" + field(results, before))
    for name, rows in by_class(results["classes"]).items():
        if "not_flagged" in rows[0]:
            parts.append(f"### {name.capitalize()} that are not flagged\n\n"
                         + not_flagged(rows[0]["not_flagged"]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def beside(text: str, other: str) -> str:
    """A figure with that of the other model."""
    return f"{text}; *{other}*" if other else text


def pair(one: Row, old: Row | None, key: str, interval: bool = False) -> str:
    """A share, and the other model's."""
    return beside(per_cent(one.get(key), interval), per_cent((old or {}).get(key)))


def false_positives(results: Row, before: Row | None) -> str:
    """By half magnitude."""
    old = {tuple(one["g"]): one for one in (before or {}).get("false_positives", [])}
    lines = []
    for one in results["false_positives"]:
        was = old.get(tuple(one["g"]))
        kind = "real" if one["kind"] == "real" else "copies with noise"
        shares = pair(one, was, "fit_or_domain", True), pair(one, was, "flagged")
        wrong = per_cent(one.get("not_flagged_5_sigma"))
        lines.append((where(one["g"]), kind, f"{one['n']:,}", *shares, which(one["flags"]), wrong))
    head = ("G", "spectra", "N", "fit or domain flag", "not `good`", "flags",
            "not flagged, 5 sigma")  # fmt: skip
    return markdown_table(head, lines)


def teff_bins(results: Row, before: Row | None) -> str:
    """By known Teff."""
    old = {tuple(one["teff_range"]): one for one in (before or {}).get("teff_bins", [])}
    lines = []
    for one in results["teff_bins"]:
        low, high = one["teff_range"]
        name = f"> {low}" if high >= 1e5 else f"{low}-{high}" if low else f"< {high}"
        teff, logg = one["labels"]["teff"], one["labels"]["logg"]
        was = old.get((low, high))
        inside, inside_logg = (
            ", ".join(per_cent(label.get(key)) for key in ("inside_68", "inside_95"))
            for label in (teff, logg)
        )
        lines.append((
            name, f"{one['n']:,}", pair(one, was, "flagged"),
            f"{teff['predicted']:.0f}, {teff['known']:.0f}",
            f"{teff['robust']:.0f} ({100 * teff['relative']:.1f} %)", f"{teff['stated']:.0f}",
            inside, pair(one, was, "not_flagged_5_sigma", True),
            pair(one, was, "not_flagged_25_per_cent", True),
            f"{logg['robust']:.3f}" if logg["n"] else "", inside_logg if logg["n"] else "",
            ", ".join(str(count) for count in one["finite"].values()),
        ))  # fmt: skip
    head = (
        "Teff (K)", "N", "flagged", "predicted, of", "robust", "stated", "inside 68.3, 95.4 %",
        "not flagged, 5 sigma", "not flagged, 25 % off", "log g robust",
        "log g inside 68.3, 95.4 %", "finite [Fe/H], [alpha/M]",
    )  # fmt: skip
    return markdown_table(head, lines)


def classes(results: Row, before: Row | None) -> str:
    """One line a class and brightness."""
    old = {(one["class"], str(one["g"])): one for one in (before or {}).get("classes", [])}
    lines = []
    for one in results["classes"]:
        was = old.get((one["class"], str(one["g"])))
        keys = ("flagged_or_right", "not_flagged_5_sigma", "not_flagged_25_per_cent")
        lines.append((
            one["class"], one["kind"], where(one["g"]), f"{one['n']:,}",
            pair(one, was, "flagged"), which(one["flags"]), *(pair(one, was, key) for key in keys),
            middle(one.get("true_teff")), middle(one["teff"]), spread(one["teff_not_flagged"]),
        ))  # fmt: skip
    head = (
        "class", "sources", "G", "N", "flagged", "by", "flagged or right", "not flagged, 5 sigma",
        "not flagged, 25 % off", "true Teff", "median prediction", "not flagged: 16-84 %",
    )  # fmt: skip
    return markdown_table(head, lines)


def field(results: Row, before: Row | None) -> str:
    """By brightness, and by S/N."""
    lines = []
    for place, one in enumerate(results["field"]):
        axis, name = ("g", "G") if "g" in one else ("snr_rp_0", "S/N of RP 0")
        was = before["field"][place] if before and "field" in before else None
        low, high = one[axis]
        text = f"< {high:g}" if not low else f"{low:g}-{high:g}"
        lines.append(
            (f"{name} {text}", f"{one['n']:,}", pair(one, was, "flagged", True),
             which(one["flags"]), middle(one["teff"]), spread(one["teff_not_flagged"]))
        )  # fmt: skip
    head = ("field stars", "N", "flagged", "by", "median Teff", "not flagged: 16-84 %")
    return markdown_table(head, lines)


def not_flagged(sources: Sequence[Row]) -> str:
    """What is not flagged, and how many of them show emission lines."""
    if not sources:
        return "None."
    lines = []
    for one in sources:
        labels = "; ".join(
            f"{v:g} ± {e:g}" if v == v else "null" for v, e in one["labels"].values()
        )
        seen = [f"{w['angstrom']} ({w['sigma']:g})" for w in one["lines"].values()]
        lines.append(
            (str(one["source_id"]), f"{one['g']:.2f}", f"{one['bp_rp']:.2f}", str(one["snr_rp_0"]),
             *seen, "yes" if one["emission"] else "", labels)
        )  # fmt: skip
    names = ", ".join(sources[0]["labels"])
    head = ("source_id", "G", "BP-RP", "S/N of RP 0", "Hα: Å (sigma)", "[O III]: Å (sigma)",
            "emission", names)  # fmt: skip
    count = sum(one["emission"] for one in sources)
    text = (
        f"{len(sources)} sources, {count} of them with light in Hα or [O III] that ordinary stars "
        "of the predicted Teff do not have (5 sigma of scatter and noise; nor do 99 % of field "
        "stars). The others look like the ordinary stars they are taken for.\n\n"
    )
    return text + markdown_table(head, lines)
