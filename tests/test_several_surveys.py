"""Several surveys on one scale, and training on labels that are not APOGEE's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from selecting import select, spectra_of
from xplabels.cli import main
from xplabels.core.stars import Stars
from xplabels.io import read_stars, write_stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars

QUICK = "hidden = [8]\nepochs = 2\nbatch_size = 64\nflux_samples = 0\nreddening = 0.0\n"


def test_two_surveys_on_one_scale(tmp_path: Path) -> None:
    """The second is 100 K hotter and has stars of its own; labels come from the first that has."""
    rng = np.random.default_rng(3)
    ids = np.arange(1, 401)
    teff = rng.uniform(4000, 6000, 400)
    first = {"source_id": ids[:250], "teff": teff[:250] + rng.normal(0, 20, 250),
             "teff_err": np.full(250, 20.0)}  # fmt: skip
    second = {"source_id": ids[150:], "teff": teff[150:] + 100 + rng.normal(0, 40, 250),
              "teff_err": np.full(250, 40.0), "logg": np.full(250, 4.0),
              "logg_err": np.full(250, 0.1)}  # fmt: skip
    for name, columns in (("first", first), ("second", second)):
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(ids, tmp_path / "one.parquet")
    spectra_of(ids + 1000, tmp_path / "two.parquet")
    tables = ("--table", f"first={tmp_path / 'first.csv'}", f"second={tmp_path / 'second.csv'}")
    status, report = select(tmp_path, *tables)
    assert status == 0
    (offset,) = report["offsets"]
    assert (offset["survey"], offset["reference"], offset["label"]) == ("second", "first", "teff")
    assert offset["common"] == 100
    assert abs(offset["value"] - 100) < 4 * offset["error"]
    assert offset["error"] == pytest.approx(1.2533 * np.hypot(20, 40) / 10, rel=0.3)
    assert offset["pull"] == pytest.approx(1, abs=0.3)
    stars = read_stars(tmp_path / "training.parquet")
    assert stars.labels is not None
    got = dict(zip(stars.source_id.tolist(), stars.labels.values, strict=True))
    assert len(got) == 400
    assert got[1][0] == pytest.approx(first["teff"][0])
    assert np.isnan(got[1][1])
    assert got[200][0] == pytest.approx(first["teff"][199])
    assert got[200][1] == 4.0
    assert got[400][0] == pytest.approx(second["teff"][-1] - offset["value"])
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert cuts["merged"]["removed"] == 100
    _, report = select(tmp_path, *tables, "--offsets", "none")
    assert report["offsets"] == []


def test_a_survey_that_nothing_ties_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, first in (("a", 1), ("b", 31)):
        columns = {"source_id": np.arange(first, first + 40), "teff": np.full(40, 5000.0),
                   "teff_err": np.full(40, 50.0)}  # fmt: skip
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(np.arange(1, 80), tmp_path / "one.parquet")
    spectra_of(np.arange(100, 120), tmp_path / "two.parquet")
    status, _ = select(tmp_path, "--table", f"a={tmp_path / 'a.csv'}", f"b={tmp_path / 'b.csv'}")
    assert status == 2
    assert "fewer than 20 stars with teff in common" in capsys.readouterr().err
    assert not (tmp_path / "training.parquet").exists()
    assert not (tmp_path / "training.cuts.json").exists()


def bare_and_labels(count: int, names: tuple[str, ...], path: Path) -> tuple[Stars, dict[str, Any]]:
    """Simulated spectra in ``path``, and the columns of a table of their labels."""
    stars = simulate_stars(count, labels=names, widths=(6, 5), noise=5.0, seed=2)[0]
    assert stars.labels is not None
    write_stars(stars.with_labels(None), path)
    columns: dict[str, Any] = {"source_id": stars.source_id}
    for k, name in enumerate(names):
        columns[name] = stars.labels.values[:, k].copy()
        columns[f"{name}_err"] = stars.labels.errors[:, k].copy()
    return stars, columns


@pytest.mark.parametrize("ending", [".csv", ".fits"])
def test_a_table_of_ones_own_trains_a_model(ending: str, tmp_path: Path) -> None:
    """Any of the six labels, in any order of rows, for part of the stars, some entries unknown."""
    names = ("teff", "c_fe")
    stars, columns = bare_and_labels(1000, names, tmp_path / "xp.parquet")
    columns["c_fe"][::7] = columns["c_fe_err"][::7] = np.nan
    chosen = np.random.default_rng(0).permutation(1000)[:800]
    table = tmp_path / f"own{ending}"
    Table({name: values[chosen] for name, values in columns.items()}).write(table)
    (tmp_path / "quick.toml").write_text(QUICK)
    words = ["train", str(tmp_path / "xp.parquet"), "--label-table", str(table), "--labels",
             "teff,c_fe", "--recipe", str(tmp_path / "quick.toml")]  # fmt: skip
    assert main([*words, "--test-fraction", "0", "--output", str(tmp_path / "MODEL")]) == 0
    model = Model.load(tmp_path / "MODEL")
    assert model.names == names
    told = json.loads((tmp_path / "MODEL" / "model.json").read_text())["training"]
    assert told["n_train"] + told["n_validation"] == 800
    predicted = model.predict(stars)
    assert np.isfinite(predicted.values).all()


def test_several_surveys_train_one_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two samples of one's own, the second 300 K hotter; the model says what was subtracted."""
    names = ("teff", "logg")
    stars, columns = bare_and_labels(1000, names, tmp_path / "one.parquet")
    spectra_of(np.arange(5, 9), tmp_path / "two.parquet", widths=(6, 5))
    hotter = columns | {"teff": columns["teff"] + 300.0}
    for name, table, rows in (("galah", columns, slice(0, 600)), ("own", hotter, slice(400, 1000))):
        Table({k: v[rows] for k, v in table.items()}).write(tmp_path / f"{name}.fits")
    status, report = select(
        tmp_path, "--table", f"galah={tmp_path / 'galah.fits'}", f"own={tmp_path / 'own.fits'}"
    )
    assert status == 0
    told = capsys.readouterr().out
    assert "own minus galah, teff: 300 +- " in told
    assert "(200 common stars), subtracted" in told
    offsets = {offset["label"]: offset["value"] for offset in report["offsets"]}
    assert offsets == pytest.approx({"teff": 300.0, "logg": 0.0}, abs=1e-6)
    selected = read_stars(tmp_path / "training.parquet")
    assert selected.labels is not None
    assert stars.labels is not None
    np.testing.assert_allclose(selected.labels.values, stars.labels.values)

    (tmp_path / "quick.toml").write_text(QUICK)
    words = ["train", str(tmp_path / "training.parquet"), "--labels", "teff,logg", "--recipe"]
    words += [str(tmp_path / "quick.toml"), "--output", str(tmp_path / "MODEL")]
    assert main(words) == 0
    training = json.loads((tmp_path / "MODEL" / "model.json").read_text())["training"]
    assert any("own minus galah, teff: 300 +- " in note for note in training["notes"])
