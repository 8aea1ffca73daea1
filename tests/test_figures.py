"""Figures: what is drawn is what was given, with units, and nothing global changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
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


def axes_of(figure: Figure) -> Iterator[object]:
    yield from figure.get_axes()
    for part in figure.subfigs:
        yield from part.get_axes()


def labels_of(figure: Figure) -> str:
    return " ".join(f"{ax.get_xlabel()} {ax.get_ylabel()} {ax.get_title('left')}"
                    for ax in axes_of(figure))  # fmt: skip


def draw(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def one_bin(low: float, coverage: float, n: int) -> Bin:
    return Bin(low, low + 0.5, Scores(n, {"coverage_68": coverage}, {}), n)


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
    row = [one_bin(8.0, 0.6, 250), one_bin(8.5, 0.7, 300)] if len(truth) > 1 else []
    bins = {axis: dict.fromkeys(names, row) for axis in ("g_mag", "logg_predicted")}
    of = dict(zip(names, predicted.T, strict=True))
    pair = ("known", "model", truth, predicted)
    return {
        "comparison": lambda: figures.comparison(names, truth, predicted),
        "z": lambda: figures.z_histograms(
            names, (truth - predicted) / errors, np.full(truth.shape, 5.0)
        ),
        "errors_g": lambda: figures.errors_along(names, "g_mag", s.g_mag, errors, parts, s.g_mag),
        "errors_labels": lambda: figures.errors_along(
            names, None, predicted, errors, parts, truth, "training set"
        ),
        "kiel": lambda: figures.kiel(
            {"Known": tuple(truth.T[[0, 1 % len(names), -1]]),
             "Predicted": tuple(predicted.T[[0, 1 % len(names), -1]])}
        ),
        "calibration": lambda: figures.calibration_curve(names, pit),
        "bins": lambda: figures.coverage_by_bins(names, bins),
        "joint": lambda: figures.joint_curve(pit[np.isfinite(pit[:, 0]), 0], 0.03),
        "side_by_side": lambda: figures.side_by_side(names, [pair, pair]),
        "differences": lambda: figures.differences_along(
            names, {"G [mag]": s.g_mag}, predicted - truth, "difference in"
        ),
        "planes": lambda: figures.planes([(names[0], names[-1])], {"Known": of, "Predicted": of}),
    }[name]()  # fmt: skip


ALL = ["comparison", "z", "errors_g", "errors_labels", "kiel", "calibration", "bins", "joint",
       "side_by_side", "differences", "planes"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("comparison", ["[K]", "[dex]"]),
        ("z", ["density"]),
        ("errors_g", ["[mag]", "[K]", "[dex]"]),
        ("errors_labels", ["[K]", "[dex]"]),
        ("kiel", ["[K]", "[dex]"]),
        ("calibration", ["[%]", "[points]"]),
        ("bins", ["[mag]", "[dex]", "[%]"]),
        ("joint", ["[%]", "[points]"]),
        ("side_by_side", ["[K]", "[dex]"]),
        ("differences", ["[mag]", "[K]", "[dex]"]),
        ("planes", ["[K]", "[dex]"]),
    ],
)
def test_every_figure_shows_stars_their_number_and_units(
    name: str, units: list[str], simulated: Simulated
) -> None:
    figure = build(name, simulated)
    assert draw(figure).startswith(b"\x89PNG")
    text = labels_of(figure) + " ".join(
        t.get_text() for legend in figure.legends for t in legend.get_texts()
    )
    assert all(word in text for word in ("N = ", *units))
    if name in ("comparison", "kiel", "side_by_side", "differences", "planes"):
        assert drawn_points(figure) > 50


def test_n_is_of_the_stars_drawn(simulated: Simulated) -> None:
    text = labels_of(build("comparison", simulated))
    assert "N = 299" in text  # one without prediction
    assert "N = 294" in text  # and five without a known label


def test_kiel_has_hot_and_luminous_stars_where_astronomers_look_for_them(
    simulated: Simulated,
) -> None:
    ax = build("kiel", simulated).get_axes()[0]
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_settings_of_the_caller_stay(simulated: Simulated) -> None:
    before = dict(mpl.rcParams)
    build("z", simulated)
    assert dict(mpl.rcParams) == before


def drawn_points(figure: Figure) -> int:
    """Points of stars that are on the axes: cells of densities, dots, histograms, curves."""
    return sum(
        len(np.atleast_1d(artist.get_array())) if artist.get_array() is not None else 0
        for ax in axes_of(figure)
        if ax.get_label() != "<colorbar>"
        for artist in ax.collections
    )


@pytest.mark.parametrize("name", ALL)
def test_where_there_is_nothing_nothing_is_drawn(name: str) -> None:
    """And no warning is raised: one star, one label, which is not known."""
    figure = build(name, simulate(1), ["teff"])
    assert drawn_points(figure) == 0
    assert draw(figure).startswith(b"\x89PNG")


def test_running_percentiles_against_a_loop() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.random(500), rng.normal(size=500)
    edges = np.array([0.0, 0.3, 0.31, 1.0])
    centres, (low, middle) = figures.running(x, y, edges, (16, 50))
    assert centres.tolist() == pytest.approx([0.15, 0.305, 0.655])
    for b in (0, 2):
        inside = [v for u, v in zip(x, y, strict=True) if edges[b] <= u < edges[b + 1]]
        assert middle[b] == pytest.approx(np.median(inside))
        assert low[b] == pytest.approx(np.percentile(inside, 16))
    assert np.isnan(middle[1])  # fewer than 20 stars


def test_the_stated_density_of_z_is_normalised_and_keeps_its_interval() -> None:
    z = np.linspace(-200, 200, 40_001)
    density = figures._mean_density(z, np.array([2.5, 4.0, 30.0]))
    assert np.trapezoid(density, z) == pytest.approx(1, abs=2e-3)
    inside = np.abs(z) <= 1
    assert np.trapezoid(density[inside], z[inside]) == pytest.approx(0.6827, abs=1e-3)


def test_importing_the_module_does_not_import_matplotlib() -> None:
    code = "import sys, xplabels.figures, xplabels.validation; print('matplotlib' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
