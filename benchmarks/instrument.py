"""How good the instrument and its noise model are, against real sources.

    python benchmarks/instrument.py --field xp_field_2000.fits --archive xp_archive \
        [--sun ASTMG173.csv] [--library] [--output benchmarks/results] [--figures docs/figures]

Real sources calibrated with GaiaXPy and pushed back; what a spectrum that is cut short costs; a
flat spectrum with bins ten times finer; the noise model's errors against real ones; correlations
against those of three real sources; with --library, magnitudes of real stars (extra library)
against those published; and, with --sun (ASTM G173-03, as it comes in the package pvlib), the Sun
against the archive spectrum of 18 Sco.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import RESULTS, ROOT, options, write_json
from xplabels.features.projection import quiet, unit_vectors
from xplabels.figures import CYCLE, styled
from xplabels.instrument import (
    MAGNITUDES,
    RESPONSE_RANGE,
    STEP,
    Instrument,
    band_matrix,
    band_model,
    gaiaxpy_instrument,
    magnitudes,
    sampled_flux,
)
from xplabels.instrument.noise import illustrative_correlations, noise_model
from xplabels.instrument.sed import Sed
from xplabels.io import read

sys.path.insert(0, str(ROOT / "tools"))
from noise_model import left_out_ratios

Array = NDArray[np.float64]
G_BINS = (7.0, 12.0, 15.0, 17.0, 20.0)
SOLAR_DIAMETER, SCO_DIAMETER = 1919.26, 0.6759e-3
"""arcsec; 18 Sco: limb-darkened, Bazot et al. 2011."""


def design(wavelength: Array) -> Array:
    """GaiaXPy's calibration on any grid as a matrix [L, 110]."""
    from gaiaxpy import calibrate

    with quiet():
        sampled, _ = calibrate(unit_vectors(), sampling=wavelength, save_file=False)
    return np.stack(list(sampled.sort_values("source_id")["flux"])).T


def round_trip(coefficients: Array, wavelength: Array, extrapolate: bool) -> Array:
    """Calibrated with GaiaXPy on a grid, and pushed back."""
    flux = coefficients @ design(wavelength).T
    seds = [Sed.of(wavelength, row) for row in flux]
    return gaiaxpy_instrument().coefficients(seds, extrapolate=extrapolate)


def bands_apart(coefficients: Array, low: float, high: float) -> Array:
    """As :func:`round_trip`, but each band calibrated and pushed back alone, over low-high nm."""
    from gaiaxpy.spectrum.sampled_basis_functions import SampledBasisFunctions

    instrument = gaiaxpy_instrument()
    wavelength = 0.5 * (instrument.edges[1:] + instrument.edges[:-1])
    returned = []
    for band, cut in (("bp", slice(55)), ("rp", slice(55, 110))):
        model = band_model(band)
        sampled = SampledBasisFunctions.from_external_instrument_model(
            wavelength, np.ones_like(wavelength), model
        ).design_matrix
        # below its dispersion table, a band's pseudo-wavelengths mean nothing
        sampled[:, wavelength < model.dispersion["wavelength"][0]] = 0.0
        sampled[:, (wavelength < low) | (wavelength > high)] = 0.0
        returned.append(coefficients[:, cut] @ sampled @ instrument.matrix[cut].T)
    return np.concatenate(returned, axis=1)


def _typical(share: Array, rows: NDArray[np.bool_], digits: int) -> float:
    """Median over indices of the median over stars."""
    return round(float(np.median(np.median(np.abs(share[rows]), axis=0))), digits)


def causes(coefficients: Array, errors: Array, g: Array, apart: Array, cut: Array) -> Any:
    """What the deviation of :func:`round_trip` is made of, in bins of G.

    Parameters
    ----------
    coefficients, errors, g
        Of the stars, as the archive has them.
    apart, cut
        :func:`bands_apart` over 310-1100 nm and over 330-1050 nm.
    """
    finer = round_trip(coefficients, np.linspace(330.0, 1050.0, 7201), False)
    coarse = round_trip(coefficients, np.linspace(330.0, 1050.0, 1441), False)
    parts = {
        "sampling, 0.5 nm in place of 0.1 nm": coarse - finer,
        "one curve for both bands": coarse - cut,
        "no light beyond 330-1050 nm": cut - apart,
        "what no light makes": apart - coefficients,
        "all": coarse - coefficients,
    }
    bright = np.repeat(coefficients[:, [0, 55]], 55, axis=1)
    found = {}
    for low, high in itertools.pairwise(G_BINS):
        inside = (g > low) & (g <= high)
        found[f"G {low:g}-{high:g}"] = {
            title: {
                "of the error": _typical(part / errors, inside, 3),
                "of coefficient 0": _typical(part / bright, inside, 6),
            }
            for title, part in parts.items()
        }
    return found


def by_brightness(z: Array, g: Array) -> dict[str, Any]:
    """Median |z| by index in bins of G, and what it comes to."""
    found = {}
    for low, high in itertools.pairwise(G_BINS):
        inside = (g > low) & (g <= high)
        median = np.median(np.abs(z[inside]), axis=0)
        found[f"G {low:g}-{high:g}"] = {
            "stars": int(inside.sum()),
            "median of all indices": round(float(np.median(median)), 3),
            "indices below 1": int((median < 1).sum()),
            "largest": round(float(median.max()), 2),
            "largest at": _index(int(median.argmax())),
            "by index": [round(float(m), 3) for m in median],
        }
    return found


def _index(i: int) -> str:
    return f"BP {i}" if i < 55 else f"RP {i - 55}"


def finer_bins() -> dict[str, float]:
    """A flat spectrum through bins ten times finer; relative to the band's largest coefficient."""
    flat = Sed.of([300.0, 1100.0], [1e-17, 1e-17])
    coarse = gaiaxpy_instrument().coefficients(flat)[0]
    low, high = RESPONSE_RANGE
    edges = np.linspace(low, high, 10 * round((high - low) / STEP) + 1)
    matrix = np.concatenate([band_matrix(band_model(band), edges) for band in ("bp", "rp")])
    fine = Instrument(edges, matrix).coefficients(flat)[0]
    return {
        band: float(np.abs(coarse - fine)[cut].max() / np.abs(fine[cut]).max())
        for band, cut in (("BP", slice(55)), ("RP", slice(55, 110)))
    }


def ranges(coefficients: Array, errors: Array, g: Array) -> dict[str, Any]:
    """What it costs in units of the error to know a source's flux over a shorter range only.

    Each row compares with the same sources known over 330-1050 nm.
    """
    faint = g > 15
    whole = np.arange(330.0, 1050.1, 0.5)
    flux = coefficients[faint] @ design(whole).T
    instrument = gaiaxpy_instrument()
    full = instrument.coefficients([Sed.of(whole, row) for row in flux])
    found = {}
    for low, high in ((336.0, 1020.0), (350.0, 1020.0), (380.0, 1000.0), (400.0, 950.0)):
        inside = (whole >= low) & (whole <= high)
        seds = [Sed.of(whole[inside], row[inside]) for row in flux]
        short = instrument.coefficients(seds, extrapolate=True)
        z = np.abs(short - full) / errors[faint]
        found[f"{low:g}-{high:g} nm, ends held"] = {
            "stars": int(faint.sum()),
            "median |z|": {
                "BP": round(float(np.median(z[:, :55])), 3),
                "RP": round(float(np.median(z[:, 55:])), 3),
            },
            "largest median |z| of an index": round(float(np.median(z, axis=0).max()), 2),
        }
    return found


def correlations(archive: Path) -> dict[str, Any]:
    """Illustrative correlations beside those of three real sources."""
    found: dict[str, Any] = {}
    below = np.tril_indices(55, -1)
    for name in ("XP_CONTINUOUS_RAW.csv", "18Sco_XP_CONTINUOUS_RAW.csv"):
        stars = read(archive / name)
        bands = (stars.spectra.bp, stars.spectra.rp)
        ours = illustrative_correlations(stars.spectra.coefficients)
        for row, source in enumerate(stars.source_id):
            found[str(source)] = of_source = {}
            for title, band, matrices in zip(("BP", "RP"), bands, ours, strict=True):
                real, made = band.correlations[row], matrices[row][below]
                of_source[title] = {
                    "rms of the real": round(float(np.std(real)), 3),
                    "rms of ours": round(float(np.std(made)), 3),
                    "correlation of the two": round(float(np.corrcoef(made, real)[0, 1]), 2),
                }
    return found


def sun(path: Path, archive: Path) -> dict[str, Any]:
    """The Sun's measured spectrum at 18 Sco's angular size against 18 Sco's archive spectrum."""
    table = np.genfromtxt(path, delimiter=",", skip_header=2)
    nearer = (SCO_DIAMETER / SOLAR_DIAMETER) ** 2
    made = gaiaxpy_instrument().coefficients(Sed.of(table[:, 0], table[:, 1] * nearer))
    real = read(archive / "18Sco_XP_CONTINUOUS_RAW.csv").spectra.coefficients
    wavelength, flux = sampled_flux(np.concatenate([made, real]))
    found: dict[str, Any] = {
        "coefficient 0, Sun / 18 Sco": {
            "BP": round(float(made[0, 0] / real[0, 0]), 4),
            "RP": round(float(made[0, 55] / real[0, 55]), 4),
        },
        "largest |difference| of c / c0 beyond 0": {
            "BP": round(float(np.abs(made[0] / made[0, 0] - real[0] / real[0, 0])[1:55].max()), 4),
            "RP": round(float(np.abs(made[0] / made[0, 55] - real[0] / real[0, 55])[56:].max()), 4),
        },
    }
    ratio = flux[0] / flux[1]
    found["sampled flux, Sun / 18 Sco"] = {
        f"{low}-{high} nm": {
            "mean": round(float(ratio[cut].mean()), 3),
            "scatter": round(float(ratio[cut].std()), 3),
        }
        for low, high in itertools.pairwise((336, 360, 400, 450, 600, 660, 800, 950, 1020))
        if (cut := (wavelength >= low) & (wavelength < high)).any()
    }
    g = magnitudes(np.concatenate([made, real]))
    found["G, BP, RP of the Sun and of 18 Sco"] = np.round(g, 3).tolist()
    return found


def library_photometry(every: int = 8) -> dict[str, Any]:
    """Synthesised minus published G, BP and RP of real stars whose sampled spectra are the SEDs.

    These spectra cover 336-1020 nm; their ends are held.
    """
    from xplabels.surveys.library import read_library

    stars = read_library()[slice(None, None, every)]
    spectra = stars.spectra
    seds = [Sed.of(spectra.wavelength, flux) for flux in spectra.flux]
    made = magnitudes(gaiaxpy_instrument().coefficients(seds, extrapolate=True))
    published = np.stack([stars.photometry.column(name)[0] for name in MAGNITUDES], axis=1)
    off = {name: made[:, b] - published[:, b] for b, name in enumerate(("G", "BP", "RP"))}
    off["BP - RP"] = off["BP"] - off["RP"]
    return {
        name: {
            "stars": int(np.isfinite(values).sum()),
            "median, mag": round(float(np.nanmedian(values)), 4),
            "68.3 % within, mag": round(
                float(np.nanpercentile(np.abs(values - np.nanmedian(values)), 68.3)), 4
            ),
        }
        for name, values in off.items()
    }


@styled
def draw_round_trip(trips: dict[str, Array], g: Array, path: Path) -> None:
    """Median deviation by index and brightness, a row of panels for each trip and unit.

    ``trips`` are titles -> deviations [N, 110] in a unit.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.8, 2.5 * len(trips)), layout="constrained")
    axes = figure.subplots(len(trips), 2, sharex="col", sharey="row")
    for row, (title, deviation) in zip(axes, trips.items(), strict=True):
        for ax, band, first in zip(row, ("BP", "RP"), (0, 55), strict=True):
            columns = slice(first, first + 55)
            for colour, (low, high) in zip(CYCLE, itertools.pairwise(G_BINS), strict=False):
                inside = (g > low) & (g <= high)
                share = np.abs(deviation[inside, columns])
                label = f"{low:g} < G < {high:g}, N = {int(inside.sum())}"
                ax.plot(np.median(share, axis=0), ".-", color=colour, label=label, linewidth=1)
            if "error" in title:
                ax.axhline(1, color="black", linewidth=0.8)
            ax.set(yscale="log", title=f"{band}: {title}")
    for ax, band in zip(axes[-1], ("BP", "RP"), strict=True):
        ax.set_xlabel(f"index of the {band} coefficient")
    for ax in axes[:, 0]:
        ax.set_ylabel("median |returned \N{MINUS SIGN} real|")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


@styled
def draw_noise(ratio: Array, g: Array, path: Path) -> None:
    """Predicted over real error by index and brightness, of stars left out of the fit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    predicted = 1 / ratio
    for column, (title, first) in enumerate((("BP", 0), ("RP", 55))):
        ax = axes[0, column]
        for colour, (low, high) in zip(CYCLE, itertools.pairwise(G_BINS), strict=False):
            inside = (g > low) & (g <= high)
            p16, p50, p84 = np.percentile(
                predicted[inside, first : first + 55], (16, 50, 84), axis=0
            )
            label = f"{low:g} < G < {high:g}, N = {int(inside.sum())}"
            ax.plot(p50, color=colour, label=label, linewidth=1.2)
            ax.fill_between(np.arange(55), p16, p84, color=colour, alpha=0.13, linewidth=0)
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set(xlabel=f"index of the {title} coefficient", ylim=(0.55, 1.6))
        ax = axes[1, column]
        for colour, i in zip(CYCLE, (0, 1, 5, 20, 54), strict=False):
            ax.plot(g, predicted[:, first + i], ".", color=colour, markersize=2, label=str(i))
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set(xlabel="$G$ [mag]", yscale="log", ylim=(0.1, 3))
        ax.legend(title=f"{title} index", markerscale=4, ncols=3, loc="lower left")
    axes[0, 0].legend(ncols=2, loc="upper left")
    for ax in axes[:, 0]:
        ax.set_ylabel("predicted / real error")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--field", type=Path, required=True)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--sun", type=Path)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures")
    args = parser.parse_args()
    field = read(args.field).spectra
    coefficients, errors = field.coefficients, field.errors
    g, bp, rp = magnitudes(coefficients).T
    back = round_trip(coefficients, np.arange(330.0, 1050.1, 0.5), False)
    coarse = round_trip(coefficients, np.arange(336.0, 1020.1, 2.0), True)
    apart, cut = bands_apart(coefficients, 310, 1100), bands_apart(coefficients, 330, 1050)
    returned = {
        "sampled 330-1050 nm by 0.5 nm": back,
        "sampled 336-1020 nm by 2 nm, ends held": coarse,
        "bands apart, 310-1100 nm": apart,
    }
    ratio = left_out_ratios(errors, g, bp - rp)
    found: dict[str, Any] = {
        "round trip": {
            title: by_brightness((seen - coefficients) / errors, g)
            for title, seen in returned.items()
        },
        "what the round trip's deviation is made of": causes(coefficients, errors, g, apart, cut),
        "flat spectrum, bins ten times finer": finer_bins(),
        "shorter spectra": ranges(coefficients, errors, g),
        "noise, left-out stars": {
            "within a factor": {
                str(factor): round(float((np.abs(np.log(ratio)) < np.log(factor)).mean()), 4)
                for factor in (1.1, 1.25, 1.5, 2.0)
            },
            "G and colour beyond the fit": noise_model()
            .errors(np.array([6.0, 20.0]), np.array([1.0, 1.0]))[:, [0, 55]]
            .tolist(),
        },
        "correlations": correlations(args.archive),
    }
    if args.library:
        found["magnitudes of library stars, synthesised - published"] = library_photometry()
    if args.sun:
        found["Sun and 18 Sco"] = sun(args.sun, args.archive)
    write_json(args.output / "instrument.json", found, indent=2)
    args.figures.mkdir(parents=True, exist_ok=True)
    bright = np.repeat(coefficients[:, [0, 55]], 55, axis=1)
    trips = {
        "as users get them / error": (back - coefficients) / errors,
        "bands apart / error": (apart - coefficients) / errors,
        "as users get them / coefficient 0": (back - coefficients) / bright,
    }
    draw_round_trip(trips, g, args.figures / "instrument.png")
    draw_noise(ratio, g, args.figures / "noise.png")
    for trips in found["round trip"].values():
        for row in trips.values():
            del row["by index"]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
