"""Figures: what is drawn is what was given, with units, and nothing global changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulated_predictions import NAMES, Simulated, simulate
from xplabels import figures
from xplabels.core.prediction import PARTS
from xplabels.core.scores import Bin, Scores


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(300)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels: only the drawing is tested here."""
    monkeypatch.setattr(figures, "DPI", 45)


def axes_of(figure: Figure) -> Iterator[Axes]:
    for part in (figure, *figure.subfigs):
        yield from part.get_axes()


def draw(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def build(name: str, s: Simulated, names: Sequence[str] = NAMES) -> Figure:
    """Each figure from the same simulated stars, with a few NaN among them."""
    chosen = [NAMES.index(n) for n in names]
    truth, predicted, errors = (
        array[:, chosen].copy()
        for array in (s.labels.values, s.prediction.values, s.prediction.errors)
    )
    truth[:5, -1], predicted[7 % len(truth)] = np.nan, np.nan
    parts = {part: s.prediction.part(part)[:, chosen] for part in PARTS}
    pit = np.where(np.isfinite(predicted), np.random.default_rng(0).random(truth.shape), np.nan)
    scores = {"coverage_68": 0.7, "slope": 0.9}
    row = [Bin(x, x + 0.5, Scores(250, scores, scores), 250) for x in (8.0, 8.5)]
    row = row if len(truth) > 1 else []
    of = dict(zip(names, predicted.T, strict=True))
    panels = [truth.T[[0, 1 % len(names), -1]], predicted.T[[0, 1 % len(names), -1]]]
    pair, dof = ("known", "model", truth, predicted), np.full(truth.shape, 5.0)
    bins = {axis: dict.fromkeys(names, row) for axis in ("g_mag", "logg_predicted")}
    f, titles = figures, [figures.axis_title(name) for name in names]
    drawn = {
        "comparison": partial(f.comparison, names, truth, predicted),
        "z": partial(f.z_histograms, names, (truth - predicted) / errors, dof),
        "errors": partial(f.errors_along, names, titles, predicted, errors, parts, truth, "known"),
        "kiel": partial(f.kiel, dict(zip(("Known", "Predicted"), map(tuple, panels), strict=True))),
        "calibration": partial(f.calibration_curve, names, pit),
        "bins": partial(f.coverage_by_bins, names, bins),
        "joint": partial(f.joint_curve, pit[np.isfinite(pit[:, 0]), 0], 0.03),
        "side_by_side": partial(f.side_by_side, names, [pair, pair]),
        "differences": partial(f.differences_along, names, {"G [mag]": s.g_mag}, predicted - truth),
        "planes": partial(f.planes, [(names[0], names[-1])], {"Known": of, "Predicted": of}),
        "slopes": partial(f.slopes, "N = S/N", dict.fromkeys(names, row)),
    }
    return drawn[name]()


UNITS = {
    "comparison": "[K] [dex]", "z": "density", "errors": "[K] [dex]", "kiel": "[K] [dex]",
    "calibration": "[%] [points]", "bins": "[mag] [dex] [%]", "joint": "[%] [points]",
    "side_by_side": "[K] [dex]", "differences": "[mag] [K] [dex]", "planes": "[K] [dex]",
    "slopes": "S/N",
}  # fmt: skip


def text_of(figure: Figure) -> str:
    axes = (f"{a.get_xlabel()} {a.get_ylabel()} {a.get_title('left')}" for a in axes_of(figure))
    legends = (t.get_text() for legend in figure.legends for t in legend.get_texts())
    return " ".join([*axes, *legends])


def drawn_points(figure: Figure) -> int:
    """Points of stars that are on the axes: cells of densities and dots."""
    return sum(
        len(np.atleast_1d(artist.get_array())) if artist.get_array() is not None else 0
        for ax in axes_of(figure)
        if ax.get_label() != "<colorbar>"
        for artist in ax.collections
    )


@pytest.mark.parametrize("name", UNITS)
def test_every_figure_shows_stars_their_number_and_units(name: str, simulated: Simulated) -> None:
    before = dict(mpl.rcParams)
    figure = build(name, simulated)
    assert draw(figure).startswith(b"\x89PNG")
    assert all(word in text_of(figure) for word in ("N = ", *UNITS[name].split()))
    if name in ("comparison", "kiel", "side_by_side", "differences", "planes"):
        assert drawn_points(figure) > 50
    assert dict(mpl.rcParams) == before
    # and where there is a single star, of which one label is not known, no point and no warning
    nothing = build(name, simulate(1), ["teff"])
    assert drawn_points(nothing) == 0
    assert draw(nothing).startswith(b"\x89PNG")


def test_n_is_of_the_stars_drawn(simulated: Simulated) -> None:
    text = text_of(build("comparison", simulated))
    assert "N = 299" in text  # one without prediction
    assert "N = 294" in text  # and five without a known label


def test_hot_and_luminous_stars_are_where_astronomers_look_for_them(simulated: Simulated) -> None:
    ax = build("kiel", simulated).get_axes()[0]
    assert ax.xaxis_inverted()
    assert ax.yaxis_inverted()


def test_running_percentiles_against_a_loop() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.beta(0.3, 1, 500), rng.normal(size=500)
    centres, (low, middle) = figures.running(x, y, 9, (16, 50))
    edges = np.linspace(*figures.limits_of(x), 10)
    assert centres == pytest.approx((edges[1:] + edges[:-1]) / 2)
    for b in range(9):
        inside = [v for u, v in zip(x, y, strict=True) if edges[b] <= u < edges[b + 1]]
        few = len(inside) < 20
        assert middle[b] == pytest.approx(np.nan if few else np.median(inside), nan_ok=True)
        assert low[b] == pytest.approx(np.nan if few else np.percentile(inside, 16), nan_ok=True)
    assert 0 < np.isnan(middle).sum() < 9


def test_the_stated_density_of_z_is_normalised_and_keeps_its_interval() -> None:
    z = np.linspace(-200, 200, 40_001)
    density = figures.mean_density(z, np.array([2.5, 4.0, 30.0]))
    assert np.trapezoid(density, z) == pytest.approx(1, abs=2e-3)
    inside = np.abs(z) <= 1
    assert np.trapezoid(density[inside], z[inside]) == pytest.approx(0.6827, abs=1e-3)
