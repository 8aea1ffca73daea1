"""How well carbon and nitrogen are known, by folds of the labelled stars, and what the spectra add.

    python benchmarks/cn.py --cn ../shared/data/cn_labels.csv [--checkpoint FOLDER]
        [--field ../shared/data/xp_field_2000.fits]

Of the model that ships. Every star is predicted by a network that did not see it: those of the
folds (from the checkpoint, or trained anew) for the training part, the model for the others. On
the same stars and folds: regressions on APOGEE's own Teff, log g, [Fe/H] and [alpha/M], and these
together with the networks' predictions. Errors are calibrated on the other folds. Writes
benchmarks/results/cn.json and cn.md, and docs/figures/cn_*.png. It needs the extras library, dev
and synthetic.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from common import RESULTS, ROOT, known_labels, markdown_table, options, write_json
from strange import field_stars
from xplabels.calibration.factors import Calibration
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.labels import LABELS
from xplabels.core.prediction import Prediction, stack
from xplabels.core.scores import robust_scatter, slope
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.explain import figures
from xplabels.explain.attention import inverse_jacobian, mean_jacobian, red_clump
from xplabels.explain.differences import (
    Curve,
    correlations,
    emulated_difference,
    normalised_spectra,
    read_extinction,
)
from xplabels.explain.explanation import MAX_EXTINCTION
from xplabels.explain.information import FREE, POPULATION, information_content
from xplabels.figures import styled
from xplabels.giants.emulator import load_emulator
from xplabels.instrument import sampled_flux
from xplabels.model import Model
from xplabels.report import png
from xplabels.surveys.library import read_library
from xplabels.surveys.offsets import Offset
from xplabels.training import _states
from xplabels.training.cross_fitting import HoldoutPrediction
from xplabels.training.run import Run
from xplabels.training.table import training_table
from xplabels.validation.finding import as_json

sys.path.insert(0, str(ROOT / "tools"))
from cn_labels import NAMES, ORDER, on_one_scale

KNOWN = ("teff", "logg", "fe_h", "alpha_m")
RESAMPLES = 500
DOF = 4.0
FEWEST = 10
EDGES = (0.8, 1.3, 1.8, 2.2, 2.5, 2.8, 3.1, 3.4, 3.6, 3.9)
METAL_RICH = -0.5
BANDWIDTHS = (0.15, 0.2, 0.3, 0.4, 0.6)
BANDS = {
    "CN 388 nm": (384, 389), "CH 430 nm": (426, 434), "CN 421 nm": (414, 422),
    "C2 516 nm": (508, 518), "CN 700-940 nm": (910, 940),
}  # fmt: skip
KINDS: dict[str, Callable[[dict[str, NDArray[np.float64]]], NDArray[np.bool_]]] = {
    "log g > 3.5": lambda known: known["logg"] > 3.5,
    "log g < 1": lambda known: known["logg"] < 1.0,
    "[Fe/H] < -1": lambda known: known["fe_h"] < -1.0,
    "[N/Fe] > 0.6": lambda known: known["n_fe"] > 0.6,
    "[C/Fe] > 0.3": lambda known: known["c_fe"] > 0.3,
    "[C/Fe] < -0.4": lambda known: known["c_fe"] < -0.4,
}

Array = NDArray[np.float64]
Regression = Callable[[Array, Array, Array], Array]


class Folds(NamedTuple):
    """N labelled stars, the part [N] that each is in, and predictions by networks without it.

    ``trains`` [P, N] are the stars that part p's networks learned from.
    """

    stars: Stars
    part: NDArray[np.int64]
    trains: NDArray[np.bool_]
    prediction: Prediction

    def predicted(self, names: tuple[str, ...]) -> Array:
        """Predictions [N, K] of these labels."""
        return np.stack([self.prediction[name].value for name in names], axis=1)


def folds_of(stars: Stars, model: Model, checkpoint: Path | None) -> Folds:
    """Cross-fitted predictions, with errors calibrated on the stars of other parts."""
    recipe, fraction = model.recipe, float(model.metadata["split"]["test_fraction"])
    table = training_table(stars, ORDER, recipe, fraction)
    seed = int(model.metadata["seed"])
    run = Run(table, recipe, seed, _states(table, recipe, seed, checkpoint), progress=False)
    parts = [(replace(model, networks=f.networks), f.left_out) for f in run.calibration_folds()]
    parts.append((model, table.validation))
    held = [HoldoutPrediction.of(uncalibrated(one), table, rows) for one, rows in parts]
    labelled = np.isfinite(table.y[:, [ORDER.index(name) for name in NAMES]]).all(axis=1)
    found, part, ids = [], [], []
    for number, (one, rows) in enumerate(parts):
        others = HoldoutPrediction.together([h for k, h in enumerate(held) if k != number])
        shape = others.shape()
        local = others.local(shape)
        calibration = replace(others.level(shape, local), shape=shape, local=local)
        one = replace(one, calibration=calibration, support=None, forward=None)
        some = table.stars[rows & labelled]
        found.append(one.predict(some, correlations=True))
        part.append(np.full(len(some), number))
        ids.append(some.source_id)
    test = labelled_test_stars(stars, model)
    found.append(replace(model, support=None, forward=None).predict(test, correlations=True))
    part.append(np.full(len(test), len(parts)))
    prediction, of = stack(found), np.concatenate(part)
    order = {one: row for row, one in enumerate(stars.source_id.tolist())}
    rows = np.array([order[one] for one in prediction.source_id.tolist()])
    training = of < len(parts) - 1
    trains = np.stack([training & (of != number) for number in range(len(parts) + 1)])
    return Folds(stars[rows], of, trains, prediction)


def labelled_test_stars(stars: Stars, model: Model) -> Stars:
    """The stars of the test part with known C and N."""
    fraction = float(model.metadata["split"]["test_fraction"])
    test = stars[part_mask(stars.source_id, "test", fraction)]
    return test[np.isfinite(known_labels(test, NAMES).values).all(axis=1)]


def uncalibrated(model: Model) -> Model:
    """The same without what was fitted to its errors."""
    recipe = model.recipe
    nominal = Calibration.nominal(len(model.names), recipe.likelihood, recipe.dof)
    return replace(model, calibration=nominal, support=None, forward=None)


def kernel(x: Array, y: Array, at: Array) -> Array:
    """Kernel regression; its width is the best of leaving one training star out."""

    def weights(one: Array, other: Array, width: float) -> Array:
        squares = ((one[:, None] - other[None]) ** 2).sum(axis=-1)
        return np.exp(-0.5 * squares / width**2) + 1e-12

    def error(width: float) -> float:
        w = weights(x, x, width)
        np.fill_diagonal(w, 0.0)
        return float(np.mean(np.abs(w @ y / w.sum(axis=1) - y)))

    w = weights(at, x, min(BANDWIDTHS, key=error))
    return np.asarray(w @ y / w.sum(axis=1))


def gaussian_process(x: Array, y: Array, at: Array) -> Array:
    """With a scale for each input, by maximum likelihood."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    covariance = ConstantKernel(1.0) * RBF(np.full(x.shape[1], 2.0)) + WhiteKernel(0.3)
    fitted = GaussianProcessRegressor(covariance, random_state=0).fit(x, (y - y.mean()) / y.std())
    return np.asarray(y.mean() + y.std() * fitted.predict(at))


def constant(x: Array, y: Array, at: Array) -> Array:
    """The median."""
    return np.full(len(at), np.median(y))


def regressed(folds: Folds, x: Array, y: Array, regression: Regression) -> Array:
    """Values [N] of each part by a regression on the stars that its network learned from."""
    found, scaled = np.empty(len(y)), (x - x.mean(axis=0)) / x.std(axis=0)
    for number, trains in enumerate(folds.trains):
        rows = folds.part == number
        found[rows] = regression(scaled[trains], y[trains], scaled[rows])
    return found


def log_density(residual: Array, sigma: Array, part: NDArray[np.int64]) -> Array:
    """Of each star [N] under Student's t, whose width is the best of the other parts."""
    steps, found = np.geomspace(0.3, 3.0, 60), np.empty(len(residual))

    def of(rows: NDArray[np.bool_], factor: float) -> Array:
        scale = factor * sigma[rows]
        constant = gammaln((DOF + 1) / 2) - gammaln(DOF / 2) - 0.5 * np.log(DOF * np.pi)
        squares = (residual[rows] / scale) ** 2
        return np.asarray(constant - np.log(scale) - (DOF + 1) / 2 * np.log1p(squares / DOF))

    for number in np.unique(part):
        best = max(steps, key=lambda step: float(of(part != number, step).mean()))
        found[part == number] = of(part == number, best)
    return found


def scores(predicted: Array, sigma: Array, known: Array, part: NDArray[np.int64]) -> dict[str, Any]:
    """Numbers with their bootstrap errors."""
    residual, random = predicted - known, np.random.default_rng(0)
    density = log_density(residual, sigma, part)

    def of(rows: NDArray[np.intp]) -> list[float]:
        r = residual[rows]
        return [
            float(robust_scatter(r)), float(np.sqrt(np.mean(r**2))), float(np.median(r)),
            float(slope(known[rows], predicted[rows])), float(density[rows].mean()),
        ]  # fmt: skip

    everyone = np.arange(len(known))
    drawn = [of(random.choice(everyone, len(everyone))) for _ in range(RESAMPLES)]
    names = ("robust", "rmse", "bias", "slope", "log_density")
    errors = np.std(drawn, axis=0)
    return {
        "n": len(known), **dict(zip(names, of(everyone), strict=True)),
        "error_of": dict(zip(names, errors.tolist(), strict=True)),
        "folds": [
            {"n": int((part == p).sum()), "robust": float(robust_scatter(residual[part == p])),
             "rmse": float(np.sqrt(np.mean(residual[part == p] ** 2)))} for p in np.unique(part)
        ],
    }  # fmt: skip


def compared(folds: Folds) -> dict[str, Any]:
    """Scores of every way, label by label."""
    known = known_labels(folds.stars, KNOWN).values
    by_spectrum, own = folds.predicted(NAMES), folds.predicted(KNOWN)
    ways: dict[str, tuple[Array, Regression]] = {
        "constant": (known, constant),
        "labels alone: kernel regression": (known, kernel),
        "labels alone: Gaussian process": (known, gaussian_process),
        "predicted labels alone: Gaussian process": (own, gaussian_process),
        "spectrum + labels: Gaussian process on both": (
            np.concatenate([by_spectrum, known], axis=1), gaussian_process,
        ),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for k, name in enumerate(NAMES):
        y = known_labels(folds.stars, [name]).values[:, 0]
        stated, constant_error = folds.prediction[name].error, np.full(len(y), y.std())
        found[name] = {"spectrum (the model)": scores(by_spectrum[:, k], stated, y, folds.part)} | {
            way: scores(regressed(folds, x, y, regression), constant_error, y, folds.part)
            for way, (x, regression) in ways.items()
        }
    return found


def coverage(folds: Folds) -> dict[str, Any]:
    """Shares inside both intervals, with the binomial error of the stated level."""
    test = folds.part == folds.part.max()
    parts = {
        "training and validation part, by folds": ~test,
        "test part": test,
        "all": np.ones_like(test),
    }
    found: dict[str, Any] = {name: {} for name in NAMES}
    for name in NAMES:
        labels, one = known_labels(folds.stars, [name]), folds.prediction[name]
        off, error = np.abs(one.value - labels.values[:, 0]), labels.errors[:, 0]
        inside = {
            "68": (LEVEL_68, off <= np.hypot(one.error, error)),
            "95": (LEVEL_95, off <= np.hypot(one.error_95, 2 * error)),
        }
        for which, rows in parts.items():
            found[name][which] = of_part = {"n": int(rows.sum())}
            for text, (level, hits) in inside.items():
                of_part[f"coverage_{text}"] = float(hits[rows].mean())
                of_part[f"sigma_{text}"] = float(np.sqrt(level * (1 - level) / rows.sum()))
    return found


def together(folds: Folds) -> dict[str, Any]:
    """How C and N go together: known, predicted, their residuals, and what is stated of these."""
    known, predicted = known_labels(folds.stars, NAMES).values, folds.predicted(NAMES)
    covariance = folds.prediction.covariance(list(NAMES))
    stated = covariance[:, 0, 1] / np.sqrt(covariance[:, 0, 0] * covariance[:, 1, 1])
    random, everyone = np.random.default_rng(0), np.arange(len(known))

    def spearman(values: Array) -> tuple[float, float]:
        from scipy.stats import spearmanr

        drawn = [spearmanr(values[random.choice(everyone, len(everyone))])[0] for _ in range(200)]
        return float(spearmanr(values)[0]), float(np.std(drawn))

    return {
        "rank correlation of known C and N": spearman(known),
        "rank correlation of predicted C and N": spearman(predicted),
        "rank correlation of residuals": spearman(predicted - known),
        "stated correlation of errors (median, 16 and 84 %)": np.quantile(
            stated, [0.5, 0.16, 0.84]
        ).tolist(),
        "scatter of [C/N], by fold": float(robust_scatter((predicted - known) @ [1.0, -1.0])),
        "scatter of [(C+N)/Fe] from their mean": float(
            robust_scatter((predicted - known).mean(axis=1))
        ),
    }


def kinds(folds: Folds) -> dict[str, Any]:
    """Bias and scatter of unusual kinds of star, and of the releases."""
    known, found = by_name(folds.stars), dict[str, Any]()
    for kind, rule in KINDS.items():
        rows = rule(known)
        found[kind] = {"n": int(rows.sum())}
        for name in NAMES:
            residual = folds.prediction[name].value[rows] - known[name][rows]
            found[kind][name] = {
                "bias": float(np.median(residual)), "robust": float(robust_scatter(residual)),
                "rmse": float(np.sqrt(np.mean(residual**2))),
                "constant": float(robust_scatter(known[name][rows])),
            }  # fmt: skip
    return found


def by_name(stars: Stars) -> dict[str, Array]:
    """Known labels [N] by their names."""
    labels = known_labels(stars)
    return dict(zip(labels.names, labels.values.T, strict=True))


@styled
def dredge_up(model: Model, field: Stars, library: Stars, path: Path) -> dict[str, Any]:
    """[C/N] against log g: field giants, library giants without labels, APOGEE's labels."""
    import matplotlib.pyplot as plt

    known = by_name(library)
    labelled = np.isfinite(known["c_fe"])
    samples = {
        "APOGEE, labelled stars": tuple(known[n][labelled] for n in ("logg", "fe_h", *NAMES)),
    }  # fmt: skip
    for name, stars in (("predicted, library", library[~labelled]), ("predicted, field", field)):
        found = model.predict(stars)
        good = found[found.good]
        samples[name] = tuple(good[n].value for n in ("logg", "fe_h", *NAMES))
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    result: dict[str, Any] = {}
    for (name, (logg, fe_h, c_fe, n_fe)), colour, size in zip(
        samples.items(), ("0.55", "#0072B2", "#D55E00"), (2.0, 0.6, 4.0), strict=True
    ):
        rows = np.flatnonzero(np.isfinite(c_fe + n_fe) & (fe_h > METAL_RICH))
        logg, c_n = logg[rows], (c_fe - n_fe)[rows]
        axes.plot(logg, c_n, ".", color=colour, ms=size, alpha=0.5)
        bins = medians(logg, c_n)
        x, y, error = (np.array([one[key] for one in bins]) for key in ("log g", "[C/N]", "error"))
        axes.errorbar(x, y, error, fmt="o-", color=colour, label=f"{name}: N = {len(rows):,}",
                      mec="black", mew=0.6, zorder=3)  # fmt: skip
        result[name] = {"n": len(rows), "bins": bins}
    axes.set(xlim=(4.2, 0.8), ylim=(-0.9, 0.5), ylabel="[C/N]", xlabel=LABELS["logg"].symbol)
    axes.legend(loc="lower left", title=f"[Fe/H] > {METAL_RICH:g}, medians")
    path.write_bytes(png(figure))
    return result


def medians(logg: Array, values: Array) -> list[dict[str, float]]:
    """In bins of log g, with bootstrap errors."""
    random, found = np.random.default_rng(0), []
    for low, high in pairwise(EDGES):
        inside = values[(logg >= low) & (logg < high)]
        if len(inside) >= FEWEST:
            drawn = [np.median(random.choice(inside, len(inside))) for _ in range(RESAMPLES)]
            found.append({
                "log g": float((low + high) / 2), "n": len(inside),
                "[C/N]": float(np.median(inside)), "error": float(np.std(drawn)),
            })  # fmt: skip
    return found


def derivatives(model: Model, stars: Stars, folder: Path) -> dict[str, Any]:
    """Derivative spectra of clump giants of little extinction, beside simulated ones.

    In the bands: per cent of the flux per dex, less what is beside the band.
    """
    clear = stars[read_extinction("library", stars) < MAX_EXTINCTION]
    chosen, flow = red_clump(clear.with_labels(known_labels(clear, KNOWN)))
    wavelength, flux = normalised_spectra(model, chosen)
    typical = np.nanmedian(flux, axis=0)
    jacobian, spread = mean_jacobian(model, chosen)
    spectra = sampled_flux(inverse_jacobian(jacobian, spread))[1]
    found: dict[str, Any] = {"stars": flow}
    for name in NAMES:
        shown = [
            Curve("derivative, full covariance", spectra[model.names.index(name)]),
            emulated_difference(load_emulator(), name),
        ]
        picture = figures.curves(name, wavelength, shown, typical)
        (folder / f"cn_derivative_{name}.png").write_bytes(png(picture))
        found[name] = {"correlation": correlations(wavelength, shown)}
        for curve in shown:
            change = 100 * curve.values / typical
            found[name][curve.title] = bands = {}
            for band, (low, high) in BANDS.items():
                inside = (wavelength >= low) & (wavelength <= high)
                width = high - low + 10
                beside = (wavelength >= low - width) & (wavelength <= high + width) & ~inside
                bands[band] = float(change[inside].mean() - change[beside].mean())
    return found


def information(model: Model, stars: Stars) -> dict[str, Any]:
    """What test giants' spectra hold of C and N (simulated bound) and what the model reaches."""
    content = information_content(model, labelled_test_stars(stars, model), load_emulator())
    found: dict[str, Any] = {"stars": content.stars}
    for name in NAMES:
        k = content.names.index(name)
        found[name] = {
            "bound, dust free": float(np.median(content.attainable[FREE][:, k])),
            "bound, population known": float(np.median(content.attainable[POPULATION][:, k])),
            "model, stated": float(np.nanmedian(content.stated[:, k])),
            "model, robust scatter": float(robust_scatter(content.residuals[:, k])),
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The page of results."""

    page = ["# Carbon and nitrogen", "", f"`{found['command']}`", ""]
    header = ["", "N", "robust scatter", "RMSE", "bias", "slope", "log density", "parts: robust"]
    digits = {"robust": 4, "rmse": 4, "bias": 3, "slope": 2, "log_density": 2}
    for name in NAMES:
        rows = []
        for way, one in found["scores"][name].items():
            cells = (
                f"{one[key]:.{n}f} ± {one['error_of'][key]:.{n}f}" for key, n in digits.items()
            )
            parts = ", ".join(f"{part['robust']:.3f}" for part in one["folds"])
            rows.append([way, one["n"], *cells, parts])
        page += [f"## {LABELS[name].description}", "", markdown_table(header, rows), ""]
    page += ["## Coverage", ""]
    rows = []
    for name in NAMES:
        for which, one in found["coverage"][name].items():
            shares = (f"{100 * value:.1f}" for key, value in one.items() if key != "n")
            rows.append([name, which, one["n"], *shares])
    header = ["", "stars", "N", "68.3 %", "binomial sigma", "95.4 %", "binomial sigma"]
    page += [markdown_table(header, rows), ""]
    page += ["## Together", ""]
    for what, value in found["together"].items():
        text = f"{value:.3f}" if isinstance(value, float) else ", ".join(f"{v:.2f}" for v in value)
        page.append(f"- {what}: {text}")
    page += ["", "## Kinds of star: bias, robust scatter (of the labels)", ""]
    rows = []
    for kind, one in found["kinds"].items():
        cells = ("{bias:+.3f}, {robust:.3f} ({constant:.3f})".format(**one[n]) for n in NAMES)
        rows.append([kind, one["n"], *cells])
    page += [markdown_table(["", "N", *NAMES], rows), ""]
    page += ["## Offsets that were subtracted", "", *(f"- {text}" for text in found["offsets"])]
    page += ["", f"Errors of the releases (C, N): {found['errors']}.", ""]
    for title in ("information", "derivatives", "dredge-up"):
        if title in found:
            text = json.dumps(as_json(found[title]), indent=1)
            page += [f"## {title.capitalize()}", "", "```json", text, "```", ""]
    return page


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cn", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--field", type=Path)
    parser.add_argument("--model", default="apogee-dr17-library")
    args = parser.parse_args()
    model = Model.load(args.model)
    scale = model.metadata["scale_of_c_and_n"]
    offsets = [
        Offset(**{k: np.nan if v is None else v for k, v in one.items()})
        for one in scale["offsets"]
    ]
    stars = on_one_scale(read_library(), args.cn, offsets, scale["errors"])
    figures_at = ROOT / "docs" / "figures"
    held = {
        "derivatives": derivatives(model, stars, figures_at),
        "information": information(model, stars),
    }
    folds = folds_of(stars, model, args.checkpoint)
    found = {
        "command": "python benchmarks/cn.py --cn cn_labels.csv --field xp_field_2000.fits",
        "model": model.metadata["sha256"], "scores": compared(folds), "coverage": coverage(folds),
        "together": together(folds), "kinds": kinds(folds),
        "offsets": [one.to_text() for one in offsets], "errors": scale["errors"], **held,
    }  # fmt: skip
    if args.field is not None:
        field = field_stars(args.field)
        field = field.with_photometry(Photometry.missing(len(field)))
        picture = figures_at / "cn_dredge_up.png"
        found["dredge-up"] = dredge_up(model, field, stars, picture)
    write_json(RESULTS / "cn.json", as_json(found))
    text = "\n".join(lines(found)).rstrip()
    (RESULTS / "cn.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
