"""Which sources a model flags, and what it says of those it does not.

    python benchmarks/domain.py [--model NAME_OR_FOLDER] [--part validation|test] \
        [--data ../shared/data] [--before benchmarks/results/domain_before.json] [--docs docs]

False positives of the fit and domain flags on ordinary stars the networks had not seen, by
magnitude; stars in bins of Teff; and, for every class of strange source, how many are flagged, by
which flag, and how many are not flagged and wrong. Each row says whether its sources are real,
altered (real spectra to which something of known amount was done) or simulated. Writes
`domain.json` and, from it, the tables of `domain.md` and a short table for the model's card. Random
numbers depend on the class, the brightness and --seed alone. Choices are made with --part
validation; --part test is for reporting.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import RESULTS, fill, options
from domain_words import MARKS, compact, markdown
from strange import (
    ALTERED,
    SIMULATED,
    Altered,
    altered_stars,
    as_archive,
    field_stars,
    generator,
    moved,
    of_teff,
    ordinary_as_archive,
    real_coefficients,
    simulated_stars,
    templates,
    unchanged,
)
from xplabels.core.flags import BAD, Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.scores import robust_scatter
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import CoefficientSpectra, SampledSpectra, Stars
from xplabels.features.projection import default_projection
from xplabels.instrument import magnitudes
from xplabels.model import DEFAULT_MODEL, Model
from xplabels.surveys.library import read_library

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]

MAGNITUDES = (13.0, 15.0, 17.0, 18.5)
HALF_MAGNITUDES = tuple(np.arange(9.0, 17.6, 0.5).tolist())
REAL_TO = 15.0
"""G to which the library has stars; fainter ones are copies of these."""
TEFF_BINS = (0, 3200, 4500, 6000, 7000, 7500, 8500, 10000, 12000, 15000, 100000)
BRIGHTNESS = (0.0, 13.0, 15.0, 17.0, 17.65, 22.0)
SNR_BINS = (0, 100, 200, 300, 500, 1000, 2000, 100000)
TEST_FRACTION = 0.1
COUNTS = {"altered": 1000, "simulated": 300, "templates": 5}
"""Sources of a class at one brightness; of the templates: each so many times."""
SIGMAS, SHARE = 5.0, 0.25
"""What counts as wrong: so many stated errors, or so large a share of Teff."""
SUBDWARFS_FROM = 20000.0
"""K: a hot subdwarf said to be hotter is right."""
FIT_OR_DOMAIN = int(Flag.OUT_OF_DOMAIN | Flag.POOR_FIT)
REAL = {
    "planetary nebulae": ("odd/planetary_nebulae.csv.gz", "SIMBAD class PN"),
    "symbiotic stars": ("odd/symbiotic_stars.csv.gz", "SIMBAD class symbiotic star"),
    "hot subdwarf candidates": (
        "odd/hot_subdwarf_candidates_c110.npz",
        "single and composite candidates; errors typical of G and colour",
    ),
}
LINES = {"h_alpha": 656.5, "o_iii": 500.8}
LIKE, SEEN = 60, 5.0
"""Ordinary stars that a source is compared with, and the sigma from which a line counts as seen."""
ONLY_NOISE = "ordinary library stars"


def rate(count: int, n: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson)."""
    from scipy.stats import binomtest

    if n == 0:
        return {"count": 0, "n": 0, "share": None, "interval": None}
    interval = binomtest(count, n).proportion_ci(method="wilson")
    return {
        "count": count,
        "n": n,
        "share": round(count / n, 5),
        "interval": [round(float(interval.low), 5), round(float(interval.high), 5)],
    }


def flag_shares(flags: NDArray[np.uint32]) -> dict[str, float]:
    """Share of the stars with each flag that makes a star not good, as far as there are any."""
    shares = {flag.name or "": float(((flags & int(flag)) > 0).mean()) for flag in BAD}
    return {name: round(share, 5) for name, share in shares.items() if share}


def row(
    prediction: Prediction, truth: Labels | None, right_from: float | None = None
) -> dict[str, Any]:
    """What is counted of the sources of a class.

    ``truth`` has their Teff, NaN where it has none; with ``right_from`` a source predicted hotter
    is right.
    """
    n, flagged = len(prediction), ~prediction.good
    teff = prediction["teff"]
    found: dict[str, Any] = {
        "n": n,
        "flagged": rate(int(flagged.sum()), n),
        "fit_or_domain": rate(int(((prediction.flags & FIT_OR_DOMAIN) > 0).sum()), n),
        "flags": flag_shares(prediction.flags),
        "teff": _percentiles(teff.value),
        "teff_not_flagged": _percentiles(teff.value[~flagged]),
        "error_not_flagged": _percentiles(teff.error[~flagged]),
    }
    if right_from is not None:
        right = teff.value > right_from
        return found | {"flagged_or_right": rate(int((flagged | right).sum()), n)}
    known = np.zeros(n, bool)
    if truth is not None:
        value, error = (a[:, 0] for a in (truth.values, truth.errors))
        known = np.isfinite(value)
    if truth is None or not known.any():
        return found
    value, error = value[known], error[known]
    residual, out = teff.value[known] - value, flagged[known]
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(residual) < SIGMAS * np.hypot(teff.error[known], error))
        far = ~(np.abs(residual) < SHARE * value)
    n = int(known.sum())
    return found | {
        "true_teff": _percentiles(value),
        "off_5_sigma": rate(int(off.sum()), n),
        "flagged_or_right": rate(int((out | ~off).sum()), n),
        "not_flagged_5_sigma": rate(int((~out & off).sum()), n),
        "not_flagged_25_per_cent": rate(int((~out & far).sum()), n),
    }


def _percentiles(values: Array) -> list[float] | None:
    """16th, 50th, 84th percentile."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return [round(float(p), 1) for p in np.percentile(values, (16, 50, 84))]


def teff_of(stars: Stars) -> Labels | None:
    """The known Teff."""
    return None if stars.labels is None else stars.labels.select(["teff"])


def false_positives(model: Model, ordinary: Stars, seed: int) -> Iterator[dict[str, Any]]:
    """Ordinary stars in half magnitudes: real ones to 15, copies of all of them beyond."""
    own = ordinary.photometry.column("phot_g_mean_mag")[0]
    for low, high in itertools.pairwise(HALF_MAGNITUDES):
        real = high <= REAL_TO
        if real:
            stars = ordinary[(own >= low) & (own < high)]
        else:
            random = generator(f"ordinary {low:g}-{high:g}", seed=seed)
            g = random.uniform(low, high, len(ordinary))
            stars = moved(ordinary, ordinary, g, random, default_projection())
        kind = "real" if real else "altered"
        yield {"g": [low, high], "kind": kind, **row(model.predict(stars), teff_of(stars))}


def teff_bins(prediction: Prediction, labels: Labels) -> list[dict[str, Any]]:
    """Stars in bins of known Teff: flags, accuracy, calibration of Teff and log g."""
    teff = labels.select(["teff"]).values[:, 0]
    found = []
    for low, high in itertools.pairwise(TEFF_BINS):
        inside = (teff >= low) & (teff < high)
        if not inside.any():
            continue
        here = prediction[inside]
        known = Labels(labels.names, labels.values[inside], labels.errors[inside])
        undefined = {
            name: int(np.isfinite(here[name].value).sum())
            for name in here.names
            if name in ("fe_h", "alpha_m")
        }
        found.append(
            {
                "teff_range": [low, high],
                **row(here, known.select(["teff"])),
                "labels": {name: _scores(here, known, name) for name in ("teff", "logg")},
                "finite": undefined,
            }
        )
    return found


def _scores(prediction: Prediction, labels: Labels, name: str) -> dict[str, Any]:
    """One label's accuracy and coverage over all stars that have both, flagged ones too."""
    one, known = prediction[name], labels.select([name])
    value, error = known.values[:, 0], known.errors[:, 0]
    both = np.isfinite(value) & np.isfinite(one.value)
    value, error = value[both], error[both]
    residual = one.value[both] - value
    n = int(both.sum())
    if n == 0:
        return {"n": 0}
    inside = {
        "inside_68": np.abs(residual) <= np.hypot(one.error[both], error),
        "inside_95": np.abs(residual) <= np.hypot(one.error_95[both], 2 * error),
    }
    return {
        "n": n,
        "predicted": round(float(np.median(one.value[both])), 3),
        "known": round(float(np.median(value)), 3),
        "rmse": round(float(np.sqrt(np.mean(residual**2))), 4),
        "robust": round(float(robust_scatter(residual)), 4),
        "relative": round(float(robust_scatter(residual / np.abs(value))), 4),
        "stated": round(float(np.median(one.error[both])), 4),
        **{key: rate(int(hit.sum()), n) for key, hit in inside.items()},
    }


def strange_classes(
    model: Model, library: Stars, ordinary: Stars, seed: int
) -> Iterator[dict[str, Any]]:
    """Altered and simulated classes at each magnitude, ordinary stars beside them."""

    def counted(name: str, kind: str, what: str, make: Callable[[float | None], Stars],
                at: tuple[float | None, ...]) -> Iterator[dict[str, Any]]:  # fmt: skip
        for g in at:
            stars = make(g)
            if len(stars):
                measured = row(model.predict(stars), teff_of(stars))
                yield {"class": name, "kind": kind, "what": what, "g": g, **measured}

    count = COUNTS["altered"]
    plain = Altered(unchanged, of_teff(0, np.inf))
    yield from counted(
        ONLY_NOISE, "altered", "nothing done but noise added",
        lambda g: altered_stars(ONLY_NOISE, ordinary, g, 4 * count, seed, plain), MAGNITUDES,
    )  # fmt: skip
    yield from counted(
        "ordinary stars as archive coefficients", "simulated",
        "bright library stars' coefficients, noise and illustrative correlations",
        lambda g: ordinary_as_archive(ordinary, g or 0.0, count // 2, seed), MAGNITUDES,
    )  # fmt: skip
    for name in ALTERED:
        yield from counted(
            name, "altered", "library stars",
            lambda g, name=name: altered_stars(name, library, g, count, seed), (None, *MAGNITUDES),
        )  # fmt: skip
    for name, (_, what) in SIMULATED.items():
        yield from counted(
            name, "simulated", what,
            lambda g, name=name: simulated_stars(name, g, COUNTS["simulated"], seed), MAGNITUDES,
        )  # fmt: skip


def real_classes(model: Model, data: Path, ordinary: Stars, seed: int) -> Iterator[dict[str, Any]]:
    """Real sources in bins of their own brightness, and mean spectra by type with noise."""
    for name, (file, what) in REAL.items():
        stars = real_coefficients(data / file)
        right = SUBDWARFS_FROM if "subdwarf" in name else None
        prediction = model.predict(stars)
        base = {"class": name, "kind": "real", "what": what}
        listed = {} if right else {"not_flagged": unflagged_sources(stars, prediction, ordinary)}
        yield base | {"g": None, **row(prediction, None, right), **listed}
        g = stars.photometry.column("phot_g_mean_mag")[0]
        for low, high in itertools.pairwise(BRIGHTNESS):
            inside = (g >= low) & (g < high)
            if inside.any():
                yield base | {"g": [low, high], **row(prediction[inside], None, right)}
    folder = data / "odd/templates"
    types, clean, labels = templates(folder)
    several = np.repeat(np.arange(len(types)), COUNTS["templates"])
    for letter in "BAFGKML":
        rows = several[[types[i].startswith(letter) for i in several]]
        for g in MAGNITUDES:
            truth = Labels(labels.names, labels.values[rows], labels.errors[rows])
            random = generator(f"type {letter}", g, seed)
            stars = as_archive(clean[rows], g, random, truth)
            yield {
                "class": f"mean spectra of {letter}-type dwarfs",
                "kind": "real spectra, simulated noise",
                "what": f"types {types[rows[0]]}-{types[rows[-1]]}; Teff by type +- 5 %",
                "g": g,
                **row(model.predict(stars), truth),
            }


def unflagged_sources(
    stars: Stars, prediction: Prediction, ordinary: Stars
) -> list[dict[str, Any]]:
    """What is not flagged: brightness, colour, predicted labels, and light in two emission lines.

    ``sigma`` of a line: its light beyond that of the :data:`LIKE` ordinary stars whose Teff is next
    to the predicted one, in units of their scatter and the source's noise.
    """
    assert isinstance(stars.spectra, CoefficientSpectra)
    assert isinstance(ordinary.spectra, SampledSpectra)
    assert ordinary.labels is not None
    coefficients, errors = stars.spectra.coefficients, stars.spectra.errors
    projection = default_projection()
    usual = projection.coefficients(ordinary.spectra)
    usual_errors = projection.coefficient_errors(ordinary.spectra)
    known = ordinary.labels.select(["teff"]).values[:, 0]
    g, bp, rp = magnitudes(coefficients).T
    found = {name: line_excess(coefficients, errors, at) for name, at in LINES.items()}
    control = {name: line_excess(usual, usual_errors, at)[0] for name, at in LINES.items()}
    bp0 = stars.spectra.bp.width
    listed = []
    for star in np.flatnonzero(prediction.good):
        like = np.argsort(np.abs(known - prediction["teff"].value[star]))[:LIKE]
        lines = {}
        for name in LINES:
            width, noise = (float(array[star]) for array in found[name])
            others = control[name][like]
            sigma = (width - np.median(others)) / np.hypot(robust_scatter(others), noise)
            lines[name] = {"angstrom": round(width), "sigma": round(float(sigma), 1)}
        one: dict[str, Any] = {
            "source_id": int(stars.source_id[star]),
            "g": round(float(g[star]), 2),
            "bp_rp": round(float(bp[star] - rp[star]), 2),
            "snr_rp_0": round(float(coefficients[star, bp0] / errors[star, bp0])),
            "lines": lines,
            "emission": any(line["sigma"] > SEEN and line["angstrom"] > 0
                            for line in lines.values()),
            "labels": {
                name: [round(float(prediction[name].value[star]), 2),
                       round(float(prediction[name].error[star]), 2)]
                for name in prediction.names
            },
        }  # fmt: skip
        listed.append(one)
    return sorted(listed, key=lambda one: float(one["g"]))


def line_excess(coefficients: Array, errors: Array, wavelength: float) -> tuple[Array, Array]:
    """Light [N] of a line over the mean of both sides, and its error, Angstrom.

    A rough equivalent width: molecular bands count as lines, too. Errors without correlations.
    """
    projection = default_projection()
    offset = np.abs(projection.wavelength - wavelength)
    inside = offset <= 12
    line = projection.design[inside].sum(axis=0)
    side = projection.design[(offset > 12) & (offset <= 24)].mean(axis=0)
    continuum, samples = coefficients @ side, int(inside.sum())
    step = 10 * 2.0  # samples are 2 nm apart
    noise = np.sqrt(((errors * (line - samples * side)) ** 2).sum(axis=1))
    return (
        step * ((coefficients @ line) / continuum - samples),
        step * noise / np.abs(continuum),
    )


def field_rows(model: Model, path: Path) -> Iterator[dict[str, Any]]:
    """Real field stars without labels, by G and by the S/N of RP 0."""
    stars = field_stars(path)
    assert isinstance(stars.spectra, CoefficientSpectra)
    prediction = model.predict(stars)
    g = stars.photometry.column("phot_g_mean_mag")[0]
    band = stars.spectra.rp
    snr = band.coefficients[:, 0] / band.errors[:, 0]
    for axis, values, edges in (("g", g, BRIGHTNESS), ("snr_rp_0", snr, SNR_BINS)):
        for low, high in itertools.pairwise(edges):
            inside = (values >= low) & (values < high)
            if inside.any():
                yield {axis: [low, high], **row(prediction[inside], None)}


def measure(model: Model, part: str, data: Path, seed: int) -> dict[str, Any]:
    """All tables as JSON holds them."""
    begun = time.monotonic()
    library = read_library()
    library = library[part_mask(library.source_id, part, TEST_FRACTION)]  # type: ignore[arg-type]
    # the noise of a fainter copy goes with its colour, which one star in thousands lacks
    colour = [library.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("bp", "rp")]
    library = library[np.isfinite(colour).all(axis=0)]
    assert library.labels is not None
    inside = Selection.of_model(model.metadata, library.labels.names)
    ordinary, flow = inside.apply(library)
    found: dict[str, Any] = {
        "model": {key: model.metadata.get(key, "") for key in ("name", "sha256", "command")},
        "part": part,
        "seed": seed,
        "ordinary": flow,
    }

    def done(what: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {what}", flush=True)

    found["false_positives"] = list(false_positives(model, ordinary, seed))
    done("false positives")
    found["teff_bins"] = teff_bins(model.predict(library), library.labels)
    done("bins of Teff")
    found["classes"] = list(strange_classes(model, library, ordinary, seed))
    done("altered and simulated classes")
    if (data / "odd").is_dir():
        found["classes"] += list(real_classes(model, data, ordinary, seed))
        found["field"] = list(field_rows(model, data / "xp_field_2000.fits"))
        done("real classes and field stars")
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def as_text(results: dict[str, Any]) -> str:
    """JSON with one row of a table on a line."""
    parts = []
    for key, value in results.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"  {json.dumps(one)}" for one in value)
            parts.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--name", default="domain", help="of the JSON and the short table")
    parser.add_argument("--before", type=Path, metavar="JSON",
                        help="results of another model, shown beside")  # fmt: skip
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="page whose tables are replaced")
    parser.add_argument("--seed", type=int, default=14)
    arguments = parser.parse_args()
    results = measure(Model.load(arguments.model), arguments.part, arguments.data, arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / arguments.name
    stem.with_suffix(".json").write_text(as_text(results))
    before = json.loads(arguments.before.read_text()) if arguments.before else None
    stem.with_suffix(".md").write_text(compact(results, before) + "\n")
    if arguments.docs:
        fill(arguments.docs, *MARKS, f"\n{markdown(results, before)}")
    print(compact(results, before))


if __name__ == "__main__":
    main()
