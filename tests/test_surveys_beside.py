"""Each survey's table of a thousand rows, as published, through validate."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from conftest import quick
from xplabels import report
from xplabels.cli import main
from xplabels.core.stars import Stars
from xplabels.io import write_stars
from xplabels.synthetic import simulate_stars
from xplabels.training import train

NAMES = ("fe_h", "n_fe", "alpha_m")
ABSENT = 0.15


@pytest.fixture(scope="module")
def stars() -> Stars:
    return simulate_stars(1000, labels=NAMES, widths=(6, 5), noise=5.0, seed=3)[0]


@pytest.fixture(scope="module")
def folder(stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("beside")
    train(stars, NAMES, quick(epochs=6), progress=False).save(made / "model")
    write_stars(stars, made / "stars.parquet")
    return made


def written(path: Path, columns: dict[str, Any]) -> None:
    """A CSV of text exactly as given."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def survey_labels(stars: Stars) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a survey says, and which rows it says nothing about."""
    random = np.random.default_rng(1)
    assert stars.labels is not None
    values = stars.labels.values + 0.1 * stars.labels.values.std(axis=0) * random.standard_normal(
        stars.labels.values.shape
    )
    return dict(zip(stars.labels.names, values.T, strict=True)), random.random(1000) < ABSENT


def text(values: np.ndarray, absent: np.ndarray, null: str) -> list[str]:
    return [null if gone else f"{v:.4f}" for v, gone in zip(values, absent, strict=True)]


def lamost_lrs(stars: Stars, path: Path) -> list[str]:
    values, absent = survey_labels(stars)
    written(path, {
        "obsid": range(1000), "source_id": stars.source_id, "snrg": [50.0] * 1000,
        "feh": text(values["fe_h"], absent, "-9999.0"),
        "feh_err": text(np.full(1000, 0.05), absent, "-9999.0"),
    })  # fmt: skip
    return ["fe_h"]


def lamost_mrs(stars: Stars, path: Path) -> list[str]:
    values, absent = survey_labels(stars)
    columns = {"n_fe": "n_fe", "alpha_m": "alpha_m_cnn"}
    written(path, {
        "obsid": range(1000), "source_id": stars.source_id, "snr": [50.0] * 1000,
        **{c: text(values[n], absent, "-9999.0") for n, c in columns.items()},
    })  # fmt: skip
    return list(columns)


def gspphot(stars: Stars, path: Path) -> list[str]:
    values, absent = survey_labels(stars)
    random = np.random.default_rng(2)
    written(path, {
        "solution_id": [1] * 1000, "source_id": stars.source_id,
        **{f"mh_gspphot{side}": text(values["fe_h"] + shift, absent, "null")
           for side, shift in (("", 0), ("_lower", -0.05), ("_upper", 0.05))},
        "ag_gspphot": text(random.uniform(0, 2, 1000), absent, "null"),
        "mg_gspphot": text(random.uniform(-1, 5, 1000), absent, "null"),
    })  # fmt: skip
    return ["fe_h"]


def fs24(stars: Stars, path: Path) -> list[str]:
    values, absent = survey_labels(stars)
    written(path, {
        "source_id": stars.source_id,
        **{n: text(v, absent, "") for n, v in values.items()},
        **{f"{n}_err": text(np.full(1000, 0.1 * v.std()), absent, "") for n, v in values.items()},
    })  # fmt: skip
    return list(NAMES)


SURVEYS: dict[str, Callable[[Stars, Path], list[str]]] = {
    "lamost-lrs": lamost_lrs, "lamost-mrs": lamost_mrs, "gspphot": gspphot, "fs24": fs24,
}  # fmt: skip


@pytest.mark.parametrize("survey", SURVEYS)
def test_from_the_command_line(
    survey: str, folder: Path, stars: Stars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "png", lambda figure: b"")
    names = SURVEYS[survey](stars, tmp_path / "table.csv")
    factor = f"{names[0]}=1.5"
    words = ["validate", str(folder / "model"), str(folder / "stars.parquet"), "--all",
             "--output", str(tmp_path / "v"), "--against", str(tmp_path / "table.csv"),
             "--survey", survey, "--inflate", factor]  # fmt: skip
    assert main(words) == 0
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    told = metrics["against"]
    _, absent = survey_labels(stars)
    assert set(told["labels"]) == set(names)
    assert stars.labels is not None
    for name in names:
        assert told["labels"][name]["n"] == (~absent).sum() < 1000
        beside = told["survey_to_survey"][name]
        spread = stars.labels.values[:, NAMES.index(name)].std()
        assert beside["rmse"] == pytest.approx(0.1 * spread, rel=0.15)
    assert told["inflation"] == {names[0]: 1.5}
    inflated = [row for title, row in metrics["table_3"].items() if "x 1.5" in title]
    assert len(inflated) == 1
    if survey == "gspphot":
        assert set(told["differences"]) == {"absolute_g", "extinction_g"}
        for bins in told["differences"].values():
            assert sum(one["n"] for one in bins["fe_h"]) == (~absent).sum()
    page = (tmp_path / "v" / "report.html").read_text()
    assert f"Against {survey}" in page
    assert "Small errors: stars whose stated error" in page


def test_stars_poor_in_nitrogen(
    folder: Path, stars: Stars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "png", lambda figure: b"")
    words = ["validate", str(folder / "model"), str(folder / "stars.parquet"), "--all"]
    assert main([*words, "--output", str(tmp_path / "v")]) == 0
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert stars.labels is not None
    poor = stars.labels.values[:, NAMES.index("n_fe")] < -0.4
    found = metrics["poor_in_nitrogen"]
    assert [row["n"] for row in found.values()] == [poor.sum(), (~poor).sum()]


@pytest.mark.parametrize(
    ("survey", "wanted"),
    [("lamost-lrs", "feh"), ("lamost-mrs", "alpha_m_cnn"), ("gspphot", "mh_gspphot"),
     ("fs24", "n_fe")],
)  # fmt: skip
def test_a_table_of_other_columns_is_told_what_was_looked_for(
    survey: str, wanted: str, folder: Path, stars: Stars, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "table.csv"
    Table({"source_id": stars.source_id, "t_eff": np.full(1000, 5000.0)}).write(path)
    words = ["validate", str(folder / "model"), str(folder / "stars.parquet"), "--all",
             "--output", str(tmp_path / "v"), "--against", str(path),
             "--survey", survey]  # fmt: skip
    assert main(words) == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert wanted in message
    assert not (tmp_path / "v").exists()
