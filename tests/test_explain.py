"""The command explain: a whole run on simulated stars, its files and its errors."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from conftest import quick

pytest.importorskip("gaiaxpy")

from xplabels.api.validation import reporting_stars, validate
from xplabels.cli import build_parser, main
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.stars import CoefficientSpectra, Photometry, Stars
from xplabels.explain import differences, explain
from xplabels.explain.attention import attention
from xplabels.explain.differences import (
    Pair,
    extinction_g,
    known_extinction,
    read_extinction,
    read_pair,
)
from xplabels.explain.figures import curves
from xplabels.explain.section import explain_finding
from xplabels.instrument.sed import Sed
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import train

NAMES = ("teff", "fe_h")
WIDE = Selection.of(["teff=4000:5600"])


@pytest.fixture(scope="module")
def stars() -> Stars:
    return simulate_stars(400, labels=NAMES, noise=5.0, seed=8)[0]


@pytest.fixture(scope="module")
def model(stars: Stars) -> Model:
    return train(stars, NAMES, quick(auxiliary=("bp_rp",)), seed=1, progress=False, name="tiny")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap is tested where it stands."""
    monkeypatch.setattr(differences, "DRAWS", 5)


def sed(depth: float) -> Sed:
    wavelength = np.arange(300.0, 1101.0)
    flux = 1e-16 * (1 - depth * np.exp(-0.5 * ((wavelength - 520) / 8) ** 2))
    return Sed.of(wavelength, flux, name=f"depth {depth:g}")


def test_every_label_has_its_curves_and_the_figure_their_correlations(
    model: Model, stars: Stars
) -> None:
    """Of any number of curves, also more than there are colours."""
    pairs = [Pair("fe_h", sed(0.1), sed(0.1 + 0.1 * n), 0.5) for n in (1, 2, 3)]
    found = explain(model, stars, selection=WIDE, pairs=pairs)
    titles = {name: [curve.title for curve in curves] for name, curves in found.curves.items()}
    known = [
        "derivative, full covariance",
        "derivative, FS24 eq. 14",
        "observed, other labels held",
        "observed, median split",
    ]
    assert titles["teff"] == known
    assert titles["fe_h"] == known + [f"depth 0.{n} − depth 0.1" for n in (2, 3, 4)]
    assert found.flow[0] == "no cut on extinction: none was given"
    metrics = found.to_metrics()
    assert set(metrics["attention"]["teff"]["mean"]) == set(model.feature_set.names)
    json.dumps(metrics, allow_nan=False)
    shown, correlations = found.curves["fe_h"], metrics["correlations"]["fe_h"]
    figure = curves("fe_h", found.wavelength, shown)
    for matrix, side in zip(figure.axes[1::2], ("BP", "RP"), strict=True):
        texts = {text.get_position(): text.get_text() for text in matrix.texts}
        assert len(texts) == len(shown) * (len(shown) - 1) / 2 == 21
        for (column, row), text in texts.items():
            pair = f"{shown[column].title} / {shown[row + 1].title}"
            assert text.replace("\N{MINUS SIGN}", "-") == f"{correlations[pair][side]:.2f}"
        assert [label.get_text() for label in matrix.get_xticklabels()] == list("123456")
        assert [label.get_text() for label in matrix.get_yticklabels()] == list("234567")


def test_stars_without_labels_are_selected_by_the_models_own(model: Model, stars: Stars) -> None:
    found = explain(model, stars.with_labels(None), selection=WIDE)
    assert "no labels are known: the model's own predictions select, and stand for them" in (
        found.flow
    )
    assert len(found.curves["teff"]) == 4


def test_dusty_stars_and_those_of_unknown_dust_are_left_out(model: Model, stars: Stars) -> None:
    a_g = np.where(np.arange(400) < 150, 0.1, np.nan)
    a_g[150:200] = 2.0
    found = explain(model, stars, selection=WIDE, extinction=a_g)
    assert found.flow[0] == "150 of 400 stars have A_G < 0.5 mag"
    assert found.flow[1].startswith("150 stars")
    assert float(found.attention.count[0]) == 400
    with pytest.raises(InputError, match=r"no star has a known A_G below 0\.01 mag"):
        explain(model, stars, selection=WIDE, extinction=a_g, max_extinction=0.01)


def test_the_command_writes_a_page_that_needs_nothing_else(
    tmp_path: Path, model: Model, stars: Stars, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(stars, tmp_path / "stars.parquet")
    model.save(tmp_path / "model")
    Table({"source_id": stars.source_id[:200], "a_g": np.full(200, 0.2)}).write(
        tmp_path / "dust.csv"
    )
    for name, depth in (("low", 0.1), ("high", 0.3)):
        made = sed(depth)
        Table({"wavelength": made.wavelength, "flux": made.flux}).write(tmp_path / f"{name}.csv")
    words = [
        "explain", str(tmp_path / "model"), str(tmp_path / "stars.parquet"),
        "--output", str(tmp_path / "out"), "--range", "teff=4000:5600", "--coefficients", "3",
        "--extinction", str(tmp_path / "dust.csv"),
        "--pair", "fe_h", str(tmp_path / "low.csv"), str(tmp_path / "high.csv"), "0.5",
    ]  # fmt: skip
    assert main(words) == 0
    assert "200 of 400 stars have A_G < 0.5 mag" in capsys.readouterr().out
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    figures = {f"figures/{name}.png" for name in ("attention", "teff", "fe_h")}
    assert written == {"explain.json", "index.html", *figures}
    page = (tmp_path / "out" / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png") == 3
    assert "high.csv − low.csv" in page
    numbers = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert numbers["provenance"]["command"].startswith("xplabels explain")
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_what_cannot_be_explained_is_an_error(tmp_path: Path, model: Model, stars: Stars) -> None:
    with pytest.raises(InputError, match="the model has no label c_fe"):
        explain(model, stars, selection=WIDE, pairs=[Pair("c_fe", sed(0.1), sed(0.2), 0.1)])
    with pytest.raises(InputError, match="step 'big' is no positive number; give a label"):
        read_pair("fe_h", "low.csv", "high.csv", "big")
    path = tmp_path / "dust.csv"
    for text, match in (
        ("source_id,ebv\n1,0.1\n", "has no column a_g"),
        ("source_id,a_g\n1,0.1\n1,0.2\n", "occurs 2 times"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            read_extinction(path, stars)


DOCS = Path(__file__).parents[1] / "docs"


def test_the_documentation_is_of_this_command_and_of_the_model_that_ships() -> None:
    text = (DOCS / "explain.md").read_text()
    (command,) = re.findall(r"^    \$ (xplabels .+)$", text, re.MULTILINE)
    build_parser().parse_args(shlex.split(command)[1:])
    block = re.search(r"<!-- library: begin -->\n(.*?)<!-- library: end -->", text, re.DOTALL)
    stated = re.search(r"SHA-256 ([0-9a-f]{12})", block[1])
    digest = Model.load("apogee-dr17-library").metadata["sha256"]
    assert digest.startswith(stated[1]), "run python benchmarks/explain.py"
    for figure in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (DOCS / figure).is_file()


def test_the_report_shows_what_the_model_looks_at(
    tmp_path: Path, model: Model, stars: Stars
) -> None:
    """Attention over the stars compared, curves of the clump among all, both as numbers too."""
    labels = Labels(
        ("teff", "logg", "fe_h"),
        np.stack([stars.labels.values[:, 0], np.full(400, 2.5), stars.labels.values[:, 1]], axis=1),
        np.full((400, 3), 0.01),
    )
    labels.values[:150, 0] = np.linspace(4701, 4799, 150)
    labels.values[:150, 2] = np.linspace(-0.4, 0.4, 150)
    clump = stars.with_labels(labels)
    validate(model, clump, selection=WIDE).write(tmp_path / "report")
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())["what it looks at"]
    chosen, _, _ = reporting_stars(model, clump, WIDE, every=False)
    seen = attention(model, chosen)
    assert list(numbers["attention"]["fe_h"]["standard deviation"].values()) == pytest.approx(
        seen.deviation[1], rel=1e-9, nan_ok=True
    )
    direct = explain(model, clump, extinction=known_extinction(clump)).to_metrics()
    assert numbers["selection"] == direct["selection"]
    shown, expected = (
        {pair: r for pair, r in of["correlations"]["fe_h"].items() if "simulated" not in pair}
        for of in (numbers, direct)
    )
    assert shown == expected
    page = (tmp_path / "report" / "report.html").read_text()
    for name in ("attention", "curves_teff", "curves_fe_h"):
        assert f'id="figure-{name}"' in page
    assert page.index("these stars are simulated") < page.index('id="accuracy"')
    for pair in expected:
        assert pair in page


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


def test_extinction_is_by_colour_or_the_librarys(stars: Stars) -> None:
    np.testing.assert_array_equal(known_extinction(stars), extinction_g(stars))
    assert known_extinction(stars.with_photometry(Photometry.missing(400))) is None
