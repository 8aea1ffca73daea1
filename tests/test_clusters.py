"""Labels through LSDB and Dask: the same rows on every scheduler, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lsdb")
pytest.importorskip("distributed")

import dask

from sky import Deadly, Wrapped, catalogues, edited, make_sky, run
from xplabels import io as archive
from xplabels.cli import main
from xplabels.convert import convert_files
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.pipeline import OnDask, workers
from xplabels.pipeline.lsdb_catalogue import SentModel, predict_catalog, write_catalog
from xplabels.pipeline.workers import connected

# LSDB's advice to its own users, and what it and Dask leave open
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes."""
    with connected(OnDask(workers=2)) as client:
        yield client


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, small_stars: Stars, small_model: Model
) -> Path:
    """Bulk files, the same as HATS, and a model."""
    folder = tmp_path_factory.mktemp("clusters")
    make_sky(folder / "bulk", small_stars[slice(0, 600)], (101, 102, 103))
    convert_files([folder / "bulk"], folder / "xp", most_rows=150)
    small_model.save(folder / "model")
    return folder


def opened(path: Path) -> Any:
    import lsdb

    return lsdb.open_catalog(path)


def rows(frame: Any) -> dict[str, np.ndarray]:
    """Every column, by source_id; the index too."""
    ordered = frame.reset_index().sort_values("source_id")
    return {name: ordered[name].to_numpy() for name in ordered.columns}


def same(first: Any, second: Any) -> None:
    one, other = rows(first), rows(second)
    assert list(one) == list(other)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_one_process_and_a_cluster_give_the_same(folder: Path, client: Any) -> None:
    model = Model.load(folder / "model")
    labels = predict_catalog(model, opened(folder / "xp"), correlations=True)
    on_cluster = labels.compute(progress_bar=False)
    with dask.config.set(scheduler="synchronous"):
        here = predict_catalog(folder / "model", opened(folder / "xp"), correlations=True)
        same(here.compute(progress_bar=False), on_cluster)
    direct = model.predict(archive.read(folder / "xp"), correlations=True)
    table = direct.to_table()
    found = rows(on_cluster)
    assert set(table.colnames) | {"pixel_ra", "pixel_dec", "_healpix_29"} == set(found)
    assert np.array_equal(found["source_id"], direct.source_id)
    assert np.array_equal(found["flags"], direct.flags)
    for name in table.colnames:
        np.testing.assert_allclose(found[name], table[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_labels_are_written_as_hats(folder: Path, client: Any, tmp_path: Path) -> None:
    from hats.io.validation import is_valid_catalog

    labels = predict_catalog(folder / "model", opened(folder / "xp"))
    write_catalog(labels, tmp_path / "labels")
    assert is_valid_catalog(tmp_path / "labels", strict=True)
    back = opened(tmp_path / "labels")
    assert back.get_healpix_pixels() == opened(folder / "xp").get_healpix_pixels()
    same(back.compute(progress_bar=False), labels.compute(progress_bar=False))
    with pytest.raises(InputError, match="exists already"):
        write_catalog(labels, tmp_path / "labels")


def test_a_part_of_the_sky_and_partitions_without_rows(folder: Path) -> None:
    with dask.config.set(scheduler="synchronous"):
        stars = opened(folder / "xp")
        centre = stars.compute(progress_bar=False).iloc[0]
        some = stars.cone_search(centre["pixel_ra"], centre["pixel_dec"], 300.0)
        empty = stars.query("source_id < 0")
        assert len(predict_catalog(folder / "model", empty).compute(progress_bar=False)) == 0
        labels = predict_catalog(folder / "model", some).compute(progress_bar=False)
        assert sorted(labels["source_id"]) == sorted(some.compute(progress_bar=False)["source_id"])


def test_rows_that_were_damaged_stay_flagged(folder: Path, tmp_path: Path) -> None:
    (path,) = make_sky(tmp_path / "bulk", archive.read(folder / "xp")[slice(0, 50)], (101,))
    edited(path, lambda lines: [*lines[:9], lines[9].replace("[", "[x", 1), *lines[10:]])
    convert_files([path], tmp_path / "xp", bad_rows="flag")
    with dask.config.set(scheduler="synchronous"):
        labels = predict_catalog(folder / "model", opened(tmp_path / "xp"))
        frame = labels.compute(progress_bar=False)
    bad = (frame["flags"].to_numpy() & int(Flag.BAD_ROW)) > 0
    assert bad.sum() == 1
    assert np.isnan(frame["teff"].to_numpy(np.float64, na_value=np.nan)[bad]).all()


def test_columns_that_were_not_opened_and_models_that_are_others(folder: Path) -> None:
    import lsdb

    with pytest.raises(InputError, match="lacks the columns bp_coefficients"):
        predict_catalog(folder / "model", lsdb.open_catalog(folder / "xp", columns=["source_id"]))
    sent = SentModel(folder / "model")
    assert sent.__dask_tokenize__() == SentModel(folder / "model").__dask_tokenize__()
    assert sent.__dask_tokenize__() != SentModel(folder / "model", True).__dask_tokenize__()
    sent.sha256 = "0"
    with pytest.raises(InputError, match="sees another model"):
        sent.model()


@pytest.mark.parametrize("deaths", [1, 9])
def test_a_worker_that_dies_loses_nothing_but_a_file_at_which_every_one_dies(
    deaths: int,
    folder: Path,
    client: Any,
    small_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk, output = folder / "bulk", tmp_path / "labels"
    run(bulk, tmp_path / "undisturbed", small_model)
    cluster, files = OnDask(client.scheduler.address), sorted(bulk.iterdir())
    star = int(archive.read(files[1]).source_id[7])
    model = Wrapped(small_model, Deadly(tmp_path, {star: deaths}))
    if deaths > 1:
        monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    summary = run(bulk, output, model, workers=cluster)
    assert not list(output.rglob("*.partial.*"))
    if deaths == 1:
        assert len(list(tmp_path.glob(f"{star}-*"))) == 1
        assert (summary.stars, summary.files, summary.failed) == (600, 3, {})
    else:
        assert list(summary.failed) == [files[1]]
        assert "worker after worker died" in summary.failed[files[1]]
        monkeypatch.undo()
        again = run(bulk, output, small_model, workers=cluster)
        assert (again.files, again.resumed, again.failed) == (3, 2, {})
    assert catalogues(output) == catalogues(tmp_path / "undisturbed")


def test_the_command_line_on_a_cluster(
    folder: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # workers have another working directory
    words = ["predict", "bulk", "--model", "model", "--dask"]
    address = client.scheduler.address
    assert main([*words, address, "--output", str(tmp_path / "labels.parquet")]) == 0
    assert main([*words, address, "--output", "on_dask"]) == 0
    assert main([*words[:-1], "--output", "here"]) == 0
    assert catalogues(folder / "on_dask") == catalogues(folder / "here")
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.5)
    assert main([*words, "tcp://127.0.0.1:9", "--output", str(tmp_path / "none")]) == 2
