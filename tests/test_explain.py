"""What a model looks at: curves, the command's folder, the report's section, pages of stars."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from conftest import line_sed, quick
from twins import coefficient_covariance

pytest.importorskip("gaiaxpy")

from xplabels.api.validation import reporting_stars, validate
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.flags import MEANING, Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import CoefficientSpectra, SampledSpectra, Stars
from xplabels.explain import differences, explain
from xplabels.explain.attention import (
    attention,
    derivative_blocks,
    spectral_inputs,
    training_covariance,
)
from xplabels.explain.differences import (
    Curve,
    known_extinction,
    read_extinction,
    simulated_difference,
)
from xplabels.explain.figures import curves
from xplabels.explain.section import explain_finding
from xplabels.explain.star_page import StarView, star_page, star_views
from xplabels.instrument import gaiaxpy_instrument, resolution, sampled_flux
from xplabels.instrument.sed import Sed
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import train

NAMES = ("teff", "fe_h")
WIDE = Selection.of(["teff=4000:5600"])
KNOWN = [
    "derivative, full covariance", "derivative, FS24 eq. 14",
    "observed, other labels held", "observed, median split",
]  # fmt: skip


@pytest.fixture(scope="module")
def stars() -> Stars:
    return simulate_stars(400, labels=NAMES, noise=5.0, seed=8)[0]


@pytest.fixture(scope="module")
def model(stars: Stars) -> Model:
    # without noise levels, which follow RP 0: a star's page leaves them out of a label's movement
    recipe = quick(auxiliary=("bp_rp",), noise_levels=False, fainter_share=0.0)
    return train(stars, NAMES, recipe, seed=1, progress=False, name="tiny")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap is tested where it stands."""
    monkeypatch.setattr(differences, "DRAWS", 5)


def pair(number: int) -> tuple[str, Curve]:
    return "fe_h", simulated_difference(
        line_sed(0.1), line_sed(0.1 + 0.1 * number), 0.5, title=f"{number}"
    )


def test_every_label_has_its_curves_and_the_figure_their_correlations(
    model: Model, stars: Stars
) -> None:
    """Of any number of curves, also more than there are colours."""
    found = explain(model, stars, selection=WIDE, pairs=[pair(n) for n in (1, 2, 3)])
    titles = {name: [curve.title for curve in curves] for name, curves in found.curves.items()}
    assert titles == {"teff": KNOWN, "fe_h": [*KNOWN, "1", "2", "3"]}
    metrics = found.to_metrics()
    assert set(metrics["attention"]["teff"]["mean"]) == set(model.feature_set.names)
    json.dumps(metrics, allow_nan=False)
    shown, correlations = found.curves["fe_h"], metrics["correlations"]["fe_h"]
    figure = curves("fe_h", found.wavelength, shown, found.flux)
    for matrix, side in zip(figure.axes[1::2], ("BP", "RP"), strict=True):
        texts = {text.get_position(): text.get_text() for text in matrix.texts}
        assert len(texts) == len(shown) * (len(shown) - 1) / 2 == 21
        for (column, row), text in texts.items():
            title = f"{shown[column].title} / {shown[row + 1].title}"
            assert text.replace("\N{MINUS SIGN}", "-") == f"{correlations[title][side]:.2f}"
        assert [label.get_text() for label in matrix.get_xticklabels()] == list("123456")
        assert [label.get_text() for label in matrix.get_yticklabels()] == list("234567")


def test_the_flow_says_how_stars_were_selected(model: Model, stars: Stars) -> None:
    """Dusty stars and those of unknown dust are left out; a model's labels stand for unknown."""
    found = explain(model, stars.with_labels(None), selection=WIDE)
    assert found.flow[:2] == (
        "no cut on extinction: none was given",
        "no labels are known: the model's own predictions select, and stand for them",
    )
    assert [curve.title for curve in found.curves["teff"]] == KNOWN
    a_g = np.where(np.arange(400) < 150, 0.1, np.nan)
    a_g[150:200] = 2.0
    found = explain(model, stars, selection=WIDE, a_g=a_g)
    assert found.flow[0] == "150 of 400 stars have A_G < 0.5 mag"
    assert found.flow[1].startswith("150 stars")
    assert float(found.attention.count[0]) == 400
    with pytest.raises(InputError, match=r"no star has a known A_G below 0\.01 mag"):
        explain(model, stars, selection=WIDE, a_g=a_g, max_extinction=0.01)


def test_the_command_writes_a_page_that_needs_nothing_else(
    tmp_path: Path,
    model: Model,
    stars: Stars,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stars(stars, Path("stars.parquet"))
    model.save(Path("model"))
    Table({"source_id": stars.source_id[:200], "a_g": np.full(200, 0.2)}).write("dust.csv")
    for name, depth in (("low", 0.1), ("high", 0.3)):
        made = line_sed(depth)
        Table({"wavelength": made.wavelength, "flux": made.flux}).write(f"{name}.csv")
    words = shlex.split(
        "explain model stars.parquet --output out --range teff=4000:5600 --coefficients 3 "
        "--extinction dust.csv --pair fe_h low.csv high.csv 0.5"
    )
    assert main(words) == 0
    assert "200 of 400 stars have A_G < 0.5 mag" in capsys.readouterr().out
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")}
    figures = {f"figures/{name}.png" for name in ("attention", "teff", "fe_h")}
    assert written == {"explain.json", "index.html", *figures}
    page = Path("out/index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png") == 3
    assert "high.csv − low.csv" in page
    numbers = json.loads(Path("out/explain.json").read_text())
    assert numbers["provenance"]["command"].startswith("xplabels explain")
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    star = str(stars.source_id[1])
    words += ["--overwrite", "--star", star]
    assert main(words) == 0
    assert f'href="stars/{star}.html"' in Path("out/index.html").read_text()
    assert Path(f"out/stars/{star}.html").is_file()
    write_stars(stars[:2], Path("stars.parquet"), overwrite=True)  # the page is all that there is
    assert main(words) == 0
    assert "pages of single stars only" in capsys.readouterr().out
    assert [path.name for path in Path("out").rglob("*.*")] == [f"{star}.html"]
    assert main(words[:-2]) == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("source_id,ebv\n1,0.1\n", "has no column a_g"),
        ("source_id,a_g\n1,0.1\n1,0.2\n", "occurs 2 times"),
    ],
)
def test_tables_of_extinction_that_cannot_be_used_are_errors(
    tmp_path: Path, stars: Stars, text: str, match: str
) -> None:
    (tmp_path / "dust.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        read_extinction(str(tmp_path / "dust.csv"), stars)


def test_the_documentation_is_of_the_model_that_ships() -> None:
    text = (Path(__file__).parents[1] / "docs" / "benchmarks" / "explain.md").read_text()
    (stated,) = re.findall(r"library: begin -->\n.*?SHA-256 ([0-9a-f]{12})", text, re.DOTALL)
    digest = Model.load("apogee-dr17-library").metadata["sha256"]
    assert digest.startswith(stated), "run python benchmarks/explain.py"


def test_the_report_shows_what_the_model_looks_at(
    tmp_path: Path, model: Model, stars: Stars
) -> None:
    """Attention over the stars compared, curves of the clump among all, both as numbers too."""
    teff, fe_h = stars.labels.values.T.copy()
    teff[:150], fe_h[:150] = np.linspace(4701, 4799, 150), np.linspace(-0.4, 0.4, 150)
    values = np.stack([teff, np.full(400, 2.5), fe_h], axis=1)
    clump = stars.with_labels(Labels(("teff", "logg", "fe_h"), values, np.full((400, 3), 0.01)))
    validate(model, clump, selection=WIDE).write(tmp_path / "report")
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())["what it looks at"]
    chosen, _, _ = reporting_stars(model, clump, WIDE, every=False)
    seen = attention(model, chosen)
    assert list(numbers["attention"]["fe_h"]["standard deviation"].values()) == pytest.approx(
        seen.deviation[1], rel=1e-9, nan_ok=True
    )
    direct = explain(model, clump, a_g=known_extinction(clump)).to_metrics()
    assert numbers["selection"] == direct["selection"]
    shown, expected = (
        {title: r for title, r in of["correlations"]["fe_h"].items() if "simulated" not in title}
        for of in (numbers, direct)
    )
    assert shown == expected
    page = (tmp_path / "report" / "report.html").read_text()
    for name in ("attention", "curves_teff", "curves_fe_h"):
        assert f'id="figure-{name}"' in page
    assert page.index("these stars are simulated") < page.index('id="accuracy"')
    for title in expected:
        assert title in page


def test_a_report_says_why_it_has_no_curves(model: Model, stars: Stars) -> None:
    found = explain_finding(model, stars[:5], stars[:9])
    assert "No curves in wavelength" in found.section.paragraphs[1]
    assert [picture.name for picture in found.section.pictures] == ["attention"]
    assert list(found.metrics["what it looks at"]) == ["attention"]
    lost = replace(stars.spectra.bp, coefficients=np.full((400, 55), np.nan))
    nobody = replace(stars, spectra=CoefficientSpectra(lost, stars.spectra.rp))
    found = explain_finding(model, nobody, nobody)
    assert "too few stars have a prediction" in found.section.paragraphs[0]
    assert not found.section.pictures
    assert not found.metrics["what it looks at"]


@pytest.fixture(scope="module")
def view(model: Model, stars: Stars) -> StarView:
    return star_views(model, stars, [int(stars.source_id[3])])[0]


def moved(star: Stars, change: np.ndarray) -> Stars:
    """The star with ``change`` [110] added to its coefficients."""
    bands = zip((star.spectra.bp, star.spectra.rp), np.split(change, 2), strict=True)
    added = [replace(band, coefficients=band.coefficients + part) for band, part in bands]
    return replace(star, spectra=CoefficientSpectra(*added))


@pytest.mark.parametrize("nm", [400, 520, 638, 850])
def test_movement_is_what_a_brighter_star_is_predicted(
    nm: int, model: Model, stars: Stars, view: StarView
) -> None:
    at = int(np.flatnonzero(view.wavelength == nm)[0])
    half, edge = 0.5 * resolution(np.array([float(nm)]))[0], 1e-4
    bump = Sed.of(
        [300.0, nm - half - edge, nm - half + edge, nm + half - edge, nm + half + edge, 1100.0],
        np.array([0, 0, 1, 1, 0, 0]) * view.flux_error[at],
    )
    change = gaiaxpy_instrument().coefficients(bump)[0] * 0.1  # labels are rounded to float32
    up, down = (model.predict(moved(stars[[3]], s * change)).values[0] for s in (1, -1))
    np.testing.assert_allclose(view.movement[:, at], (up - down) / 0.2, rtol=3e-3)


def test_the_curves_are_as_the_pages_words_have_them(
    model: Model, stars: Stars, view: StarView
) -> None:
    """Flux and error are the coefficients' own; information is (change / error)^2, shared out."""
    spectra = stars[[3]].spectra
    wavelength, design = sampled_flux(np.eye(110))
    np.testing.assert_allclose(view.flux, spectra.coefficients[0] @ design, rtol=1e-9)
    variance = np.diag(design.T @ coefficient_covariance(spectra, 0) @ design)
    np.testing.assert_allclose(view.flux_error, np.sqrt(variance), rtol=1e-6)
    weights = np.cov(model.feature_set.compute(stars).x[:, :110].T, bias=True)
    ((_, jacobians),) = derivative_blocks(model, stars[[3]])
    jacobian = jacobians[0, :, :110]
    inverse = weights @ jacobian.T @ np.linalg.inv(jacobian @ weights @ jacobian.T)
    for k in range(2):
        density = (inverse[:, k] @ design / view.flux_error) ** 2
        share = 100 * density / np.trapezoid(density, wavelength)
        np.testing.assert_allclose(view.information[k], share, rtol=1e-4, atol=1e-7)


def test_sampled_spectra_show_as_they_are(stars: Stars) -> None:
    wavelength, flux = sampled_flux(stars.spectra.coefficients)
    error = 0.01 * np.abs(flux).mean(axis=1, keepdims=True) * np.ones_like(flux)
    seen = replace(stars, spectra=SampledSpectra(wavelength, flux, error))
    model = train(seen, NAMES, quick(auxiliary=()), seed=1, progress=False)
    view = star_views(model, seen, [int(seen.source_id[5])])[0]
    np.testing.assert_array_equal(view.flux, flux[5])
    np.testing.assert_array_equal(view.flux_error, error[5])
    assert np.isfinite(view.movement).all()


def test_what_cannot_be_shown_is_an_error(model: Model, stars: Stars) -> None:
    with pytest.raises(InputError, match="there is no source_id 42"):
        star_views(model, stars, [42])
    with pytest.raises(InputError, match="the model has no prediction"):
        star_views(model, moved(stars[[3]], np.full(110, np.nan)), [int(stars.source_id[3])])
    narrow = simulate_stars(400, labels=NAMES, widths=(6, 5), noise=5.0, seed=8)[0]
    small = train(narrow, NAMES, quick(auxiliary=()), seed=1, progress=False)
    for show in (
        lambda: star_views(small, narrow, [int(narrow.source_id[0])]),
        lambda: explain(small, narrow),
        lambda: sampled_flux(np.ones((2, 11))),
    ):
        with pytest.raises(InputError, match="spectra of 11 coefficients have no wavelengths"):
            show()


def test_the_training_stars_covariance_is_what_the_model_was_scaled_by(
    model: Model, stars: Stars
) -> None:
    """The stars that it trained on give it again, missing and masked ones apart."""
    split = part_mask(stars.source_id, "train", model.metadata["split"]["test_fraction"])
    again = np.cov(spectral_inputs(model, stars[split]).T, bias=True)
    np.testing.assert_allclose(training_covariance(model), again, rtol=0.02, atol=1e-12)


def test_the_page_holds_every_number_and_asks_for_nothing(model: Model, view: StarView) -> None:
    page = star_page(view, {"command": "</script><b>"})
    assert "</script><b>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    outside = set(re.findall(r"https?://[^\"' ]+", page))
    assert outside == {"http://www.w3.org/2000/svg"}  # a name, not an address
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(found[1])
    assert [label["name"] for label in data["labels"]] == list(model.names)
    assert data["source_id"] == str(view.source_id)
    np.testing.assert_allclose(data["labels"][1]["movement"], view.movement[1], rtol=1e-4)


def test_a_star_with_an_undefined_label_has_a_page_of_the_others(
    model: Model, stars: Stars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its null label is left out; a star without any label has no page."""
    predict, null = Model.predict, [1]

    def with_null(model: Model, stars: Stars) -> Prediction:
        prediction = predict(model, stars)
        values = prediction.values.copy()
        values[:, null] = np.nan
        return replace(prediction, values=values)

    monkeypatch.setattr(Model, "predict", with_null)
    (view,) = star_views(model, stars, [int(stars.source_id[3])])
    shown = [label["name"] for label in view.to_data()["labels"]]
    assert shown == list(model.names[:1])
    null.append(0)
    with pytest.raises(InputError, match="no prediction"):
        star_views(model, stars, [int(stars.source_id[3])])


def test_flags_and_notes_stand_on_the_page_in_words(view: StarView) -> None:
    flags = np.array([Flag.OUT_OF_DOMAIN | Flag.NO_CORRELATIONS], np.uint32)
    flagged = replace(view, prediction=replace(view.prediction, flags=flags))
    page = star_page(flagged, {"notes": "these stars are simulated", "command": "x"})
    for flag in (Flag.OUT_OF_DOMAIN, Flag.NO_CORRELATIONS):
        assert MEANING[flag] in page
    assert MEANING[Flag.LOW_SNR] not in page
    assert page.count("these stars are simulated") == 1
    assert page.index("these stars are simulated") < page.index("<section>")
    assert 'class="notes"' not in star_page(view, {"command": "x"})


@pytest.mark.parametrize("names", [("fe_h",), ()])
def test_known_labels_stand_beside_and_unknown_ones_are_null(
    names: tuple[str, ...], model: Model, stars: Stars
) -> None:
    one = stars.with_labels(stars.labels.select(names) if names else None)
    labels = star_views(model, one, [int(stars.source_id[3])])[0].to_data()["labels"]
    truth = float(f"{stars.labels.values[3, 1]:.5g}") if names else None
    assert [label["known"] for label in labels] == [None, truth]


PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => {
  const chart = document.getElementById("chart"), box = chart.getBoundingClientRect();
  const readout = () => document.querySelector("#readout p").textContent.split(":")[0];
  const cursor = () => Number(document.getElementById("cursor").getAttribute("x1"));
  const press = (key) => chart.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const pressed = (key) => { press(key); return readout(); };
  const home = pressed("Home"), left = cursor(), before = pressed("ArrowLeft");
  const end = pressed("End"), right = cursor(), beyond = pressed("ArrowRight");
  const quarter = left + 0.25 * (right - left);
  chart.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + quarter, clientY: box.top + 90, bubbles: true }));
  const pointed = readout(), off = Math.abs(cursor() - quarter);
  const next = pressed("ArrowRight"), ten = pressed("PageUp"), back = pressed("PageDown");
  const titles = () => [...chart.querySelectorAll("text.title")].map((t) => t.textContent).join();
  const teff = titles().includes("information on teff");
  document.querySelectorAll(".card")[1].click();
  const fe_h = titles().includes("information on fe_h");
  const cards = [...document.querySelectorAll(".card")].map((c) => c.getAttribute("aria-pressed"));
  const chosen = document.querySelector("tr.chosen th").textContent;
  const spoken = chart.getAttribute("aria-valuetext");
  const now = chart.getAttribute("aria-valuenow");
  const dots = [...chart.querySelectorAll("circle")].map((c) => Number(c.getAttribute("cx")));
  const texts = [...chart.querySelectorAll("text")].map((t) => t.getBoundingClientRect());
  const cut = texts.filter((t) => t.left < box.left - 1 || t.right > box.right + 1).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const lines = chart.querySelectorAll("polyline").length;
  const requests = performance.getEntriesByType("resource").length;
  const light = getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128;
  parent.postMessage({ width: innerWidth, home, before, end, beyond, pointed, off: off < 2, next,
    ten, back, teff, fe_h, cards, chosen, spoken: spoken.split(" moves")[0], now,
    dots: dots.every((d) => d === cursor()) && dots.length, cut, wide, lines, requests, light,
    errors }, "*");
});</script>"""

FRAME = """<html><body><script>
addEventListener("message", (event) => { document.title = JSON.stringify(event.data); });
</script><iframe width="WIDTH" height="900" style="border: 0" src="star.html"></iframe></body>"""
"""A browser's own window has a smallest width; a frame has none."""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (900, False), (1400, True)])
def test_in_a_browser(
    width: int, dark: bool, view: StarView, tmp_path: Path, in_browser: Callable[..., str]
) -> None:
    """Pointing, keys and choosing a label work; no console message, no request, nothing wide."""
    text = star_page(view, {"command": "xplabels explain"})
    page = tmp_path / "star.html"
    page.write_text(text.replace("<body>", "<body>" + PROBE), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    mode = ["--force-dark-mode"] if dark else []
    found = json.loads(in_browser(frame, "--window-size=1500,1000", *mode))
    at = int(found["pointed"].removesuffix(" nm"))
    assert at in (506, 508)  # 507 is a quarter of the way; a pixel may be 2 nm
    assert found == {
        "width": width, "home": "336 nm", "before": "336 nm", "end": "1020 nm",
        "beyond": "1020 nm", "pointed": f"{at} nm", "off": True, "next": f"{at + 2} nm",
        "ten": f"{at + 22} nm", "back": f"{at + 2} nm", "teff": True, "fe_h": True,
        "cards": ["false", "true"], "chosen": "Iron abundance [Fe/H]", "now": f"{at + 2}",
        "spoken": f"{at + 2} nm: Iron abundance [Fe/H]", "dots": 3, "cut": 0, "wide": 0,
        "lines": 3, "requests": 0, "light": not dark, "errors": [],
    }  # fmt: skip
