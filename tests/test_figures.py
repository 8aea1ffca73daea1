"""Figures: what is drawn is what was given, with units, and nothing global changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from simulated_predictions import NAMES, Simulated, simulate
from xplabels import figures
from xplabels.core.prediction import PARTS


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
    return " ".join(f"{ax.get_xlabel()} {ax.get_ylabel()} {ax.get_title('left')}"  # type: ignore[attr-defined]
                    for ax in axes_of(figure))  # fmt: skip


def draw(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def build(name: str, s: Simulated) -> Figure:
    """Each figure from the same simulated stars, with a few NaN among them."""
    truth, predicted = s.labels.values.copy(), s.prediction.values.copy()
    truth[:5, 1], predicted[7] = np.nan, np.nan
    parts = {part: s.prediction.part(part) for part in PARTS}
    pit = np.random.default_rng(0).random(truth.shape)
    bins = [(np.array([[8.0, 8.5], [8.5, 9.0]]), np.array([0.6, 0.7]), np.full(2, 0.06),
             np.array([250, 300]))] * 4  # fmt: skip
    return {
        "comparison": lambda: figures.comparison(NAMES, truth, predicted),
        "z": lambda: figures.z_histograms(
            NAMES, (truth - predicted) / s.prediction.errors, np.full(truth.shape, 5.0)
        ),
        "errors_g": lambda: figures.errors_along(
            NAMES, "g_mag", s.g_mag, s.prediction.errors, parts, s.g_mag
        ),
        "errors_labels": lambda: figures.errors_along(
            NAMES, None, predicted, s.prediction.errors, parts, truth, "training set"
        ),
        "kiel": lambda: figures.kiel(
            {"Known": (truth[:, 0], truth[:, 1], truth[:, 2]),
             "Predicted": (predicted[:, 0], predicted[:, 1], predicted[:, 2])}
        ),
        "calibration": lambda: figures.calibration_curve(NAMES, pit),
        "bins": lambda: figures.coverage_by_bins(NAMES, {"g_mag": bins, "logg_predicted": bins}),
    }[name]()  # fmt: skip


ALL = ["comparison", "z", "errors_g", "errors_labels", "kiel", "calibration", "bins"]


@pytest.mark.parametrize("name", ALL)
def test_every_figure_draws_and_states_n(name: str, simulated: Simulated) -> None:
    figure = build(name, simulated)
    assert draw(figure).startswith(b"\x89PNG")
    text = labels_of(figure) + " ".join(
        t.get_text() for legend in figure.legends for t in legend.get_texts()
    )
    assert "N = " in text


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("comparison", ["[K]", "[dex]"]),
        ("errors_g", ["[mag]", "[K]", "[dex]"]),
        ("errors_labels", ["[K]", "[dex]"]),
        ("kiel", ["[K]", "[dex]"]),
        ("calibration", ["[%]", "[points]"]),
        ("bins", ["[mag]", "[dex]", "[%]"]),
    ],
)
def test_axes_carry_units(name: str, units: list[str], simulated: Simulated) -> None:
    text = labels_of(build(name, simulated))
    assert all(unit in text for unit in units)


def test_n_is_of_the_stars_drawn(simulated: Simulated) -> None:
    text = labels_of(build("comparison", simulated))
    assert "N = 299" in text  # one without prediction
    assert "N = 294" in text  # and five without a known logg


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


@pytest.mark.parametrize("name", ALL)
def test_one_label_and_few_stars(name: str) -> None:
    """Nothing is drawn where there is nothing, and no warning is raised."""
    s = simulate(1)
    draw(build_one(name, s))


def build_one(name: str, s: Simulated) -> Figure:
    truth = s.labels.values[:, :1]
    errors = s.prediction.errors[:, :1]
    parts = {part: s.prediction.part(part)[:, :1] for part in PARTS}
    nothing = np.full((1, 1), np.nan)
    empty = (np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0))
    return {
        "comparison": lambda: figures.comparison(["teff"], truth, nothing),
        "z": lambda: figures.z_histograms(["teff"], nothing, nothing),
        "errors_g": lambda: figures.errors_along(["teff"], "g_mag", s.g_mag, errors, parts),
        "errors_labels": lambda: figures.errors_along(
            ["teff"], None, nothing, errors, parts, nothing
        ),
        "kiel": lambda: figures.kiel({"Known": (nothing[0], nothing[0], nothing[0])}),
        "calibration": lambda: figures.calibration_curve(["teff"], nothing),
        "bins": lambda: figures.coverage_by_bins(["teff"], {"g_mag": [empty]}),
    }[name]()


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
