"""Catalogue files: every format gives back what was written, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import Table

from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.prediction import Prediction, astropy_table
from xplabels.io.catalogue import FORMATS, write_catalogue

META = {
    "model": "apogee-dr17-library",
    "version": "0.1.0",
    "command": "xplabels predict " + "a_rather_long_file_name.csv.gz " * 5 + "--output µ.fits",
    "training": {"stars": 31657, "name": "library"},
}
TEFF_UCD = "phys.temperature.effective"


def make_prediction(stars: int = 5) -> Prediction:
    rng = np.random.default_rng(3)
    values = rng.normal([5000.0, 3.0], [500.0, 1.0], (stars, 2))
    values[1] = np.nan
    parts = [np.where(np.isnan(values), np.nan, rng.uniform(1, 2, (stars, 2))) for _ in range(3)]
    flags = np.zeros(stars, np.uint32)
    flags[1] = Flag.MISSING_BP
    total = np.sqrt(sum(part**2 for part in parts))
    return Prediction(
        source_id=np.arange(stars) + 5405570973190252288, names=("teff", "logg"), values=values,
        errors=total, errors_model=parts[0], errors_input=parts[1], errors_excess=parts[2],
        errors_95=2.2 * total, domain_distance=rng.uniform(0, 1, stars), flags=flags,
        correlations=rng.uniform(-1, 1, (stars, 1)), meta=META,
    )  # fmt: skip


def read_back(path: Path) -> Table:
    if path.suffix == ".parquet":
        return astropy_table(pq.read_table(path))
    if path.suffix == ".vot":
        return parse(str(path)).get_first_table().to_table()
    return Table.read(path, format="ascii.ecsv" if path.suffix == ".ecsv" else None)


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_back_the_same_columns_and_numbers(tmp_path: Path, ending: str) -> None:
    prediction, path = make_prediction(), tmp_path / f"labels{ending}"
    write_catalogue(prediction, path)
    table, written = read_back(path), prediction.to_table()
    assert table.colnames == written.colnames
    for name in written.colnames:
        column = table[name]
        if written[name].dtype.kind == "f":
            column = np.ma.filled(column, np.nan)
        if ending == ".csv" and name == "good":  # astropy leaves True and False as text
            column = column == "True"
        np.testing.assert_array_equal(column, written[name], err_msg=name)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".parquet", ".fits", ".ecsv", ".vot"])
def test_units_and_descriptions_survive_where_the_format_holds_them(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"labels{ending}"
    write_catalogue(make_prediction(), path)
    table = read_back(path)
    if ending == ".fits":  # where TOPCAT looks, and astropy does not
        header = fits.getheader(path, 1)
        for number, name in enumerate(table.colnames, start=1):
            table[name].description = header[f"TCOMM{number}"]
    assert str(table["teff"].unit) == "K"
    assert "Effective temperature" in table["teff"].description
    assert Flag.LOW_SNR.name in table["flags"].description
    if ending in (".parquet", ".ecsv"):
        assert str(table["logg_error"].unit) == "dex"
    else:  # no unit dex in these standards: the description says it
        assert table["logg_error"].unit is None
        assert table["logg_error"].description.endswith("[dex]")


def test_fits_header_has_ucds_provenance_and_no_hierarch_cards(tmp_path: Path) -> None:
    write_catalogue(make_prediction(), tmp_path / "labels.fits")
    with fits.open(tmp_path / "labels.fits") as hdus:
        hdus.verify("exception")
        header = hdus[1].header
    assert header["TTYPE2"] == "teff"
    assert header["TUCD2"] == TEFF_UCD
    assert header["MODEL"] == "apogee-dr17-library"
    assert header["VERSION"] == "0.1.0"
    assert header["TRAINING"] == '{"stars": 31657, "name": "library"}'
    assert "--output \\xb5.fits" in "".join(header["HISTORY"])
    assert not any(card.image.startswith("HIERARCH") for card in header.cards)


def test_votable_has_ucds_and_provenance(tmp_path: Path) -> None:
    write_catalogue(make_prediction(), tmp_path / "labels.vot")
    file = parse(str(tmp_path / "labels.vot"))
    infos = {info.name: info.value for info in file.resources[0].infos}
    assert infos["model"] == "apogee-dr17-library"
    assert infos["command"] == META["command"]
    assert file.get_first_table().get_field_by_id_or_name("teff").ucd == TEFF_UCD


def test_parquet_and_ecsv_hold_all_metadata(tmp_path: Path) -> None:
    for ending in (".parquet", ".ecsv"):
        path = tmp_path / f"labels{ending}"
        write_catalogue(make_prediction(), path)
        table = read_back(path)
        assert table.meta["command"] == META["command"]
        assert '"stars": 31657' in table.meta["training"]
        assert table["teff"].meta["ucd"] == TEFF_UCD


def test_csv_is_what_astropy_would_write(tmp_path: Path) -> None:
    prediction = make_prediction()
    prediction.values[2] = [1e-7, 1e22]
    write_catalogue(prediction, tmp_path / "ours.csv")
    prediction.to_table().write(tmp_path / "theirs.csv", format="ascii.csv")
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "theirs.csv").read_text()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.parquet"
    path.write_text("old")

    def full_disk(table: object, target: Path, **_: object) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(InputError, match="No space left"):
        write_catalogue(make_prediction(), path, overwrite=True)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["labels.parquet"]
