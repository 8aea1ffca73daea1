"""What a model looks at: curves, the command's folder, the report's section, and their errors."""

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
from xplabels.core.stars import CoefficientSpectra, Stars
from xplabels.explain import differences, explain
from xplabels.explain.attention import attention
from xplabels.explain.differences import (
    Curve,
    known_extinction,
    read_extinction,
    read_pairs,
    simulated_difference,
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
DOCS = Path(__file__).parents[1] / "docs"
KNOWN = [
    "derivative, full covariance", "derivative, FS24 eq. 14",
    "observed, other labels held", "observed, median split",
]  # fmt: skip


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


def pair(number: int) -> tuple[str, Curve]:
    return "fe_h", simulated_difference(sed(0.1), sed(0.1 + 0.1 * number), 0.5, title=f"{number}")


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
    figure = curves("fe_h", found.wavelength, shown)
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
        made = sed(depth)
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
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("fe_h low.csv high.csv big", "--pair fe_h low.csv .*step 'big' is no positive number"),
        ("fe_h low.csv high.csv 0", "step '0' is no positive number; give a label"),
        ("c_fe sed.csv sed.csv 0.1", "the model has no label c_fe; give pairs of teff, fe_h"),
        ("fe_h sed.csv low.csv 0.1", "low.csv: does not exist"),
    ],
)
def test_pairs_that_cannot_be_used_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sed.csv").write_text("wavelength,flux\n300,1e-16\n1100,1e-16\n")
    with pytest.raises(InputError, match=match):
        read_pairs([words.split()], NAMES)


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
