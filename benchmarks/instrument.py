"""How good the instrument and its noise model are, against real sources.

    python benchmarks/instrument.py --field xp_field_2000.fits --archive xp_archive \
        [--sun ASTMG173.csv] [--output benchmarks/results] [--figures docs/figures]

Real sources calibrated with GaiaXPy and pushed back; what a spectrum that is cut short costs; a
flat spectrum with bins ten times finer; the noise model's errors against real ones; correlations
against those of three real sources; and, with --sun (ASTM G173-03, as it comes in the package
pvlib), the Sun against the archive spectrum of 18 Sco.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels import instrument as room
from xplabels.archive import read
from xplabels.figures import CYCLE, styled
from xplabels.instrument import Instrument, gaiaxpy_instrument, magnitudes, sampled_flux
from xplabels.noise import illustrative_correlations, noise_model
from xplabels.projection import quiet, unit_vectors
from xplabels.sed import Sed

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from noise_model import field_stars, left_out_ratios

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


def bands_apart(coefficients: Array) -> Array:
    """As :func:`round_trip`, but each band calibrated and pushed back alone, over 310-1100 nm."""
    from gaiaxpy.spectrum.sampled_basis_functions import SampledBasisFunctions

    instrument = gaiaxpy_instrument()
    wavelength = 0.5 * (instrument.edges[1:] + instrument.edges[:-1])
    returned = []
    for band, name, cut in (
        ("bp", room.BP_MODEL, slice(55)),
        ("rp", room.RP_MODEL, slice(55, 110)),
    ):
        model = room._band_model(band, name)
        sampled = SampledBasisFunctions.from_external_instrument_model(
            wavelength, np.ones_like(wavelength), model
        ).design_matrix
        # below its dispersion table, a band's pseudo-wavelengths mean nothing
        sampled[:, wavelength < model.dispersion["wavelength"][0]] = 0.0
        returned.append(coefficients[:, cut] @ sampled @ instrument.matrix[cut].T)
    return np.concatenate(returned, axis=1)


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
    low, high = room.RESPONSE_RANGE
    edges = np.linspace(low, high, 10 * round((high - low) / room.STEP) + 1)
    models = [room._band_model("bp", room.BP_MODEL), room._band_model("rp", room.RP_MODEL)]
    matrix = np.concatenate([room._matrix(model, edges) for model in models])
    fine = Instrument(edges, matrix, (55, 55)).coefficients(flat)[0]
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
    found = {}
    below = np.tril_indices(55, -1)
    for name in ("XP_CONTINUOUS_RAW.csv", "18Sco_XP_CONTINUOUS_RAW.csv"):
        stars = read(archive / name)
        bands = (stars.spectra.bp, stars.spectra.rp)
        ours = illustrative_correlations(np.concatenate([b.coefficients for b in bands], axis=1))
        for row, source in enumerate(stars.source_id):
            found[str(source)] = {
                title: {
                    "rms of the real": round(float(np.std(band.correlations[row])), 3),
                    "rms of ours": round(float(np.std(made[row][below])), 3),
                    "correlation of the two": round(
                        float(np.corrcoef(made[row][below], band.correlations[row])[0, 1]), 2
                    ),
                }
                for title, band, made in zip(("BP", "RP"), bands, ours, strict=True)
            }
    return found


def sun(path: Path, archive: Path) -> dict[str, Any]:
    """The Sun's measured spectrum at 18 Sco's angular size against 18 Sco's archive spectrum."""
    table = np.genfromtxt(path, delimiter=",", skip_header=2)
    nearer = (SCO_DIAMETER / SOLAR_DIAMETER) ** 2
    made = gaiaxpy_instrument().coefficients(Sed.of(table[:, 0], table[:, 1] * nearer))
    spectra = read(archive / "18Sco_XP_CONTINUOUS_RAW.csv").spectra
    real = np.concatenate([spectra.bp.coefficients, spectra.rp.coefficients], axis=1)
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


@styled
def draw_round_trip(z: Array, g: Array, path: Path) -> None:
    """Median |z| by index and brightness."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, title, first in zip(axes, ("BP", "RP"), (0, 55), strict=True):
        for colour, (low, high) in zip(CYCLE, itertools.pairwise(G_BINS), strict=False):
            inside = (g > low) & (g <= high)
            median = np.median(np.abs(z[inside, first : first + 55]), axis=0)
            label = f"{low:g} < G < {high:g}, N = {int(inside.sum())}"
            ax.plot(median, ".-", color=colour, label=label, linewidth=1)
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set(yscale="log", xlabel=f"index of the {title} coefficient")
    axes[0].set_ylabel("median |returned − real| / error")
    axes[1].legend()
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--field", type=Path, required=True)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--sun", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    args = parser.parse_args()
    coefficients, errors = field_stars(args.field)
    g, bp, rp = magnitudes(coefficients).T
    z = {
        "sampled 330-1050 nm by 0.5 nm": round_trip(
            coefficients, np.arange(330.0, 1050.1, 0.5), False
        ),
        "sampled 336-1020 nm by 2 nm, ends held": round_trip(
            coefficients, np.arange(336.0, 1020.1, 2.0), True
        ),
    }
    z["bands apart, 310-1100 nm"] = bands_apart(coefficients)
    z = {title: (back - coefficients) / errors for title, back in z.items()}
    ratio = left_out_ratios(errors, g, bp - rp)
    found: dict[str, Any] = {
        "round trip": {title: by_brightness(values, g) for title, values in z.items()},
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
    if args.sun:
        found["Sun and 18 Sco"] = sun(args.sun, args.archive)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "instrument.json").write_text(json.dumps(found, indent=2) + "\n")
    args.figures.mkdir(parents=True, exist_ok=True)
    draw_round_trip(z["sampled 330-1050 nm by 0.5 nm"], g, args.figures / "instrument.png")
    draw_noise(ratio, g, args.figures / "noise.png")
    for trips in found["round trip"].values():
        for row in trips.values():
            del row["by index"]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
