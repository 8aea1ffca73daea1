"""What a model uses of the spectra, as a folder: attention, derivative spectra and differences."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels, label_of
from xplabels.core.selection import Selection
from xplabels.core.stars import Stars
from xplabels.explain.attention import (
    Attention,
    attention,
    forward_derivatives,
    inverse_jacobian,
    mean_jacobian,
    red_clump,
)
from xplabels.explain.differences import (
    STEPS,
    Curve,
    correlations,
    emulated_difference,
    most_informative,
    normalised_spectra,
    observed_difference,
    observed_slopes,
)
from xplabels.explain.figures import lines_within
from xplabels.explain.information import GRID, GRID_G, Content, giant_branch, information_content
from xplabels.explain.star_page import StarView, spectrum_of, star_page
from xplabels.giants.emulator import Emulator
from xplabels.instrument import check_widths, sampled_flux
from xplabels.io.atomic import check_new_folder, whole_folder
from xplabels.model import Model
from xplabels.report.page import pretty, template
from xplabels.validation.finding import as_json

Array = NDArray[np.float64]

FILES = ("explain.json", "index.html", "figures/*.png", "stars/*.html")
FORWARD = "derivative, forward model"
FOR_NOISE = 50
"""Most stars from which the typical error of the flux is taken."""
MAX_EXTINCTION = 0.5
"""Largest A_G (mag) of the stars for curves: FS24, section 5.3."""


@dataclass(frozen=True)
class Explanation:
    """What a model uses of the spectra.

    Attributes
    ----------
    attention
        Attention over all stars given.
    wavelength
        Wavelengths [L], nm.
    flux, flux_error
        Typical normalised flux [L] of the stars of the curves, with its error.
    curves
        Curves [L] by label: first derivative spectra, then differences.
    flow
        How the stars of the curves were selected.
    content, branch
        If requested, attainable and reached errors of giants, and attainable ones along the giant
        branch.
    """

    attention: Attention
    wavelength: Array
    flux: Array
    flux_error: Array
    curves: Mapping[str, Sequence[Curve]]
    flow: tuple[str, ...]
    content: Content | None = None
    branch: Mapping[str, Array] | None = None

    def features(self, name: str) -> list[tuple[float, float]]:
        """Ranges of wavelength, nm, with half of the information on a label at the stars' noise.

        By the forward model's derivative or, if there is none, the network's.
        """
        titles = [curve.title for curve in self.curves[name]]
        shown = self.curves[name][titles.index(FORWARD) if FORWARD in titles else 0]
        return most_informative(self.wavelength, shown.values, self.flux_error)

    def sentence(self, name: str) -> str:
        """The same in a sentence, with the lines and bands there."""
        places = []
        for low, high in self.features(name):
            lines = lines_within(low, high)
            places.append(f"{low:g}-{high:g} nm" + (f" ({', '.join(lines)})" if lines else ""))
        *first, last = places
        text = f"{', '.join(first)} and {last}" if first else last
        return f"Half of what these spectra say of {name} is at {text}."

    def to_metrics(self) -> dict[str, Any]:
        """Numbers as JSON: attention by label and input, correlations of curves, selection."""
        metrics: dict[str, Any] = {}
        if self.content is not None:
            metrics["information"] = self.content.to_metrics()
        if self.branch is not None:
            errors = {name: np.round(e, 4) for name, e in self.branch.items()}
            metrics["attainable along the giant branch"] = GRID | {
                "g_mag": GRID_G, "errors": errors,
            }  # fmt: skip
        metrics |= {
            "selection": self.flow,
            "attention": self.attention.to_metrics(),
            "correlations": {
                name: correlations(self.wavelength, shown) for name, shown in self.curves.items()
            },
            "half of the information": {name: self.features(name) for name in self.curves},
            "wavelength": self.wavelength,
            "curves": {
                name: {curve.title: curve.values for curve in shown}
                for name, shown in self.curves.items()
            },
        }
        plain: dict[str, Any] = as_json(metrics)
        return plain


def explain(
    model: Model,
    stars: Stars,
    *,
    selection: Selection | None = None,
    a_g: Array | None = None,
    max_extinction: float = MAX_EXTINCTION,
    emulator: Emulator | None = None,
    pairs: Sequence[tuple[str, Curve]] = (),
    unseen: Stars | None = None,
    seen: Attention | None = None,
) -> Explanation:
    """Attention over all ``stars``; derivative spectra and differences of a selection.

    Parameters
    ----------
    model, stars
        A model of DR3 spectra (55 + 55 coefficients), and N stars. Their known labels are used to
        select stars and for the observed differences; if there are none, the model's predictions.
    selection
        Selection of the stars for curves; None: the red clump of FS24's table 5.
    a_g, max_extinction
        Stars whose A_G [N], mag, is unknown or not below the limit are left out of the curves;
        None: no cut.
    emulator, pairs
        Emulated giants, for simulated differences of abundances at the clump's centre; and labels
        with simulated differences of one's own.
    unseen
        Giants with known labels on which the model was not trained, whose errors are compared with
        the attainable ones (with ``emulator``).
    seen
        Attention to use instead of that over ``stars``.

    Raises
    ------
    InputError
        If too few stars are selected, or the spectra have other widths.
    """
    content = branch = None
    if unseen is not None and emulator is not None:
        content = information_content(model, unseen, emulator)
        branch = giant_branch(emulator)
    check_widths(model.feature_set.n_spectral)
    chosen, flow = _select(model, stars, selection, a_g, max_extinction)
    wavelength, flux = normalised_spectra(model, chosen)
    jacobian, spread = mean_jacobian(model, chosen)
    curves: dict[str, list[Curve]] = {name: [] for name in model.names}
    for title, weights in (
        ("derivative, full covariance", spread),
        ("derivative, FS24 eq. 14", np.diag(np.diag(spread))),
    ):
        spectra = sampled_flux(inverse_jacobian(jacobian, weights))[1]
        for name, spectrum in zip(model.names, spectra, strict=True):
            curves[name].append(Curve(title, spectrum))
    by_forward = forward_derivatives(model, chosen)
    if by_forward is not None:
        for name, spectrum in zip(model.common_names, sampled_flux(by_forward)[1], strict=True):
            curves[name].append(Curve(FORWARD, spectrum))
    names = [name for name in model.names if chosen.labels and name in chosen.labels.names]
    known = chosen.labels.select(names).values if chosen.labels and names else np.empty((0, 0))
    for column, name in enumerate(names):
        curves[name].append(observed_slopes(flux, known, column))
        curves[name].append(observed_difference(flux, known[:, column]))
    if emulator is not None:
        for name in curves.keys() & STEPS.keys():
            curves[name].append(emulated_difference(emulator, name))
    for name, curve in pairs:
        curves[name].append(curve)
    seen = attention(model, stars) if seen is None else seen
    typical = np.nanmedian(flux, axis=0)
    error = typical * _relative_error(chosen, wavelength)
    return Explanation(seen, wavelength, typical, error, curves, tuple(flow), content, branch)


def _relative_error(stars: Stars, wavelength: Array) -> Array:
    """Median error of the flux relative to it [L], over at most :data:`FOR_NOISE` of the stars."""
    relative = []
    for row in np.unique(np.linspace(0, len(stars) - 1, FOR_NOISE).astype(int)).tolist():
        sampling, flux, error = spectrum_of(stars[row : row + 1])
        with np.errstate(invalid="ignore", divide="ignore"):
            relative.append(np.interp(wavelength, sampling, np.abs(error / flux)))
    return np.asarray(np.nanmedian(relative, axis=0))


def _select(
    model: Model,
    stars: Stars,
    selection: Selection | None,
    a_g: Array | None,
    max_extinction: float,
) -> tuple[Stars, list[str]]:
    """The stars of the curves, and the cut flow."""
    flow = ["no cut on extinction: none was given"]
    if a_g is not None:
        clear = a_g < max_extinction
        if not clear.any():
            raise InputError(
                f"no star has a known A_G below {max_extinction:g} mag",
                where=stars.origin or None,
                remedy="give a table with a_g, or no cut on extinction",
            )
        flow = [f"{int(clear.sum())} of {len(stars)} stars have A_G < {max_extinction:g} mag"]
        stars = stars[clear]
    if stars.labels is None or not np.isfinite(stars.labels.values).any():
        prediction = model.predict(stars)
        stars = stars.with_labels(Labels(prediction.names, prediction.values, prediction.errors))
        flow.append("no labels are known: the model's own predictions select, and stand for them")
    if selection is None:
        chosen, cuts = red_clump(stars)
    else:
        assert stars.labels is not None
        chosen, cuts = selection.complete_in(stars.labels.names).apply(stars)
    return chosen, flow + cuts


def write_explanation(
    found: Explanation | None,
    folder: Path,
    *,
    coefficients: int,
    title: str,
    provenance: Mapping[str, str],
    views: Sequence[StarView],
    overwrite: bool = False,
) -> list[Path]:
    """Write ``explain.json``, ``index.html``, ``figures/*.png`` and ``stars/*.html``.

    The folder is written completely or not at all. Every page is self-contained; only
    ``index.html`` links to those of single stars. If ``found`` is None, only the pages of the
    ``views`` are written, one for each. The figure of the attention has so many ``coefficients``
    of each band; ``provenance`` is command, version, model and data.

    Returns the pages: ``index.html`` or, without it, those of single stars. Raises
    :class:`InputError` if the folder exists (without ``overwrite``), contains other files, or
    cannot be written.
    """
    check_new_folder(folder, FILES, overwrite)
    files: dict[str, str | bytes] = {
        f"stars/{view.source_id}.html": star_page(view, provenance) for view in views
    }
    pages = list(files)
    if found is not None:
        pages = ["index.html"]
        files |= _files(found, coefficients, title, provenance, views)
    with whole_folder(folder, overwrite) as partial:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return [folder / name for name in pages]


def _files(
    found: Explanation,
    coefficients: int,
    title: str,
    provenance: Mapping[str, str],
    views: Sequence[StarView],
) -> dict[str, str | bytes]:
    """Name -> content of the page, its figures and its numbers."""
    from xplabels.explain import figures
    from xplabels.report import png

    metrics = {"provenance": dict(provenance)} | found.to_metrics()
    pictures = {"attention": png(figures.attention_bars(found.attention, coefficients))}
    for name, shown in found.curves.items():
        pictures[name] = png(figures.curves(name, found.wavelength, shown, found.flux))
    if found.content is not None:
        pictures["information"] = png(figures.information(found.content))
    if found.branch is not None:
        pictures["fading"] = png(figures.fading(found.branch))
    page = template("explain.html.j2").render(
        title=title,
        flow=found.flow,
        labels={name: label_of(name).description for name in found.curves},
        sentences={name: pretty(found.sentence(name), found.curves) for name in found.curves},
        correlations=metrics["correlations"],
        provenance={"notes": "", **provenance},
        content=found.content and found.content.stars,
        grid={label_of(name).description: errors for name, errors in (found.branch or {}).items()},
        stars=[view.source_id for view in views],
        grid_axes=GRID,
        grid_g=GRID_G,
        images={name: base64.b64encode(data).decode() for name, data in pictures.items()},
    )
    return {f"figures/{name}.png": picture for name, picture in pictures.items()} | {
        "explain.json": json.dumps(metrics, indent=1, allow_nan=False) + "\n",
        "index.html": page,
    }
