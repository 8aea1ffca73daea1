"""What an astronomer types: labels by name, masks, tables, files, short reprs."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import xplabels as xp


@pytest.fixture(scope="module")
def labels() -> xp.Prediction:
    return xp.load_model().predict(xp.example_stars(20), covariance=True)


def test_every_public_name_is_there_and_stated_once() -> None:
    stub = Path(xp.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    stated = [
        alias.name
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(xp.__all__) == sorted(stated)
    for name in xp.__all__:
        assert getattr(xp, name) is not None
    with pytest.raises(AttributeError):
        xp.nonesuch  # noqa: B018


def test_one_label_with_its_errors_and_their_parts(labels: xp.Prediction) -> None:
    logg = labels["logg"]
    np.testing.assert_array_equal(logg.value, labels.values[:, 1])
    np.testing.assert_array_equal(logg.error, labels.errors[:, 1])
    np.testing.assert_array_equal(logg.error_95, labels.errors_95[:, 1])
    squares = sum(part**2 for part in logg.parts.values())
    np.testing.assert_allclose(squares, logg.error**2, rtol=1e-12)
    assert (logg.name, logg.unit, set(logg.parts)) == ("logg", "dex", {"model", "input", "excess"})
    with pytest.raises(xp.InputError, match="no label 'mass' was predicted; there are teff"):
        labels["mass"]


def test_masks_and_slices_keep_everything(labels: xp.Prediction) -> None:
    bright = labels[labels["teff"].value > np.median(labels["teff"].value)]
    assert len(bright) == 10
    np.testing.assert_array_equal(labels[:3].covariance(), labels.covariance()[:3])
    assert labels[np.array([4, 2])].source_id.tolist() == labels.source_id[[4, 2]].tolist()


def test_tables_and_files_hold_the_same(labels: xp.Prediction, tmp_path: Path) -> None:
    arrow, table, frame = labels.to_arrow(), labels.to_table(), labels.to_pandas()
    assert arrow.column_names == table.colnames == list(frame.columns)
    assert str(table["teff_error"].unit) == "K"
    for name in arrow.column_names:
        np.testing.assert_array_equal(arrow[name].to_numpy(), table[name])
        np.testing.assert_array_equal(frame[name], table[name])
    labels.write(tmp_path / "labels.parquet")
    again = pq.read_table(tmp_path / "labels.parquet")
    assert again.schema.equals(arrow.schema, check_metadata=True)
    assert again.to_pandas().equals(frame)
    with pytest.raises(xp.InputError, match="exists"):
        labels.write(tmp_path / "labels.parquet")
    labels[:2].write(tmp_path / "labels.parquet", overwrite=True)


def test_stars_are_joined_and_split(tmp_path: Path) -> None:
    stars = xp.example_stars(40)
    rows = [f"{star},{5000 + n},50" for n, star in enumerate(stars.source_id)]
    (tmp_path / "labels.csv").write_text("\n".join(["source_id,teff,teff_err", *rows]))
    rows = [f"{star},12.5,0.02" for star in stars.source_id]
    (tmp_path / "light.csv").write_text("\n".join(["source_id,w1mpro,w1sigmpro", *rows]))
    joined = stars.with_labels(None).join(
        photometry=tmp_path / "light.csv", labels=tmp_path / "labels.csv"
    )
    assert joined.labels.values[:, 0].tolist() == [5000.0 + n for n in range(40)]
    assert (joined.photometry.column("w1mpro")[0] == 12.5).all()
    parts = xp.split(joined)
    assert sorted(np.concatenate([part.source_id for part in parts])) == sorted(stars.source_id)


def test_reprs_are_short_and_say_what_it_is(labels: xp.Prediction) -> None:
    model, stars = xp.load_model(), xp.example_stars(7)
    for thing, word in ((model, "apogee-dr17-library"), (stars, "N = 7"), (labels, "N = 20")):
        assert word in repr(thing)
        assert len(repr(thing)) < 300
    assert len(repr(model.networks)) < 100
    page = labels._repr_html_()
    assert page.count("<tr>") == 6
    assert str(labels.source_id[0]) in page
    assert "Network" in model._repr_html_()
    assert "N = 7" in stars._repr_html_()
