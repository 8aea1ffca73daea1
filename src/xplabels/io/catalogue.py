"""Write a prediction as a catalogue file, in the format that its ending names.

Units, UCDs, descriptions and provenance are kept as far as each format allows: FITS and VOTable
have no unit ``dex`` (it is put into the description), VOTable has provenance as INFO elements, CSV
has names and numbers only.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from xplabels.core.errors import InputError
from xplabels.core.prediction import astropy_table
from xplabels.io.atomic import check_output, whole_file

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.io.fits import BinTableHDU
    from astropy.table import Table

    from xplabels.core.prediction import Prediction

UNWRITABLE_UNITS = {"dex"}
"""Units that neither the FITS nor the VOTable standard has."""


def check_catalogue(path: Path, overwrite: bool = False, instead: str = "") -> None:
    """Check, before any work, that a catalogue can be written to ``path``.

    ``instead`` is added to the remedy for an unknown ending.

    Raises InputError if the ending is unknown, the file exists and ``overwrite`` is false, or the
    folder is absent or cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"the ending {path.suffix!r} names no catalogue format",
            where=path,
            remedy=f"end the name in one of {', '.join(FORMATS)}{instead}",
        )
    if path.is_dir():
        raise InputError("is a folder", where=path, remedy="name a file")
    check_output(path, overwrite)


def write_catalogue(prediction: Prediction, path: str | Path, overwrite: bool = False) -> None:
    """Write a prediction to ``path``; the ending chooses the format (:data:`FORMATS`).

    The file appears whole or not at all. Raises InputError as :func:`check_catalogue`, or if the
    disk fills up.

    Examples
    --------
    >>> import xplabels as xp
    >>> labels = xp.load_model().predict(xp.example_stars(3))
    >>> write_catalogue(labels, "labels.ecsv")  # or labels.write("labels.ecsv")
    """
    path = Path(path)
    check_catalogue(path, overwrite)
    write_table(prediction.to_arrow(), path, overwrite)


def write_table(table: pa.Table, path: Path, overwrite: bool = False) -> None:
    """Write a catalogue's table (as :meth:`Prediction.to_arrow` makes it) to ``path``."""
    with warnings.catch_warnings(), whole_file(path, overwrite) as temporary:
        # a unit that a user's label came with is written as it stands
        warnings.filterwarnings("ignore", message=".*(not parse as fits unit|W50).*")
        _WRITERS[path.suffix.lower()](table, temporary)


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _write_csv(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        _put_csv(table, file)


def csv_text(table: pa.Table) -> str:
    """A table as the text of a CSV file."""
    file = io.StringIO()
    _put_csv(table, file)
    return file.getvalue()


def _put_csv(table: pa.Table, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches():
        writer.writerows(zip(*(c.to_pylist() for c in batch.columns), strict=True))


def _write_ecsv(table: pa.Table, path: Path) -> None:
    astropy_table(table).write(path, format="ascii.ecsv")


def _write_fits(table: pa.Table, path: Path) -> None:
    from astropy.io import fits

    plain = _with_standard_units(table)
    meta, plain.meta = plain.meta, {}
    ucds = [column.meta.pop("ucd", None) for column in plain.itercols()]
    descriptions = [column.description for column in plain.itercols()]
    for column in plain.itercols():
        column.description = None
    hdu = fits.table_to_hdu(plain)
    for number, (ucd, description) in enumerate(zip(ucds, descriptions, strict=True), start=1):
        if description:
            hdu.header[f"TCOMM{number}"] = _ascii(description)
        if ucd:
            hdu.header[f"TUCD{number}"] = ucd
    hdu.header["EXTNAME"] = "XPLABELS"
    _put_meta(hdu, meta)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def _put_meta(hdu: BinTableHDU, meta: Mapping[str, str]) -> None:
    """Write short entries as cards of the header, and those too long for a card as HISTORY."""
    for key, text in meta.items():
        card = key.upper()
        fits_card = len(card) <= 8 and card.replace("_", "").replace("-", "").isalnum()
        value = _ascii(text)
        if fits_card and card not in hdu.header and len(value) <= 68:
            hdu.header[card] = value
        else:
            hdu.header.add_history(f"{key}: {value}")


def _ascii(text: str) -> str:
    """FITS headers hold printable ASCII only."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")


def _write_votable(table: pa.Table, path: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    plain = _with_standard_units(table)
    meta, plain.meta = plain.meta, {}
    file = from_table(plain)
    for key, text in meta.items():
        file.resources[0].infos.append(Info(name=key, value=text))
    file.to_xml(str(path), tabledata_format="binary2")


def _with_standard_units(table: pa.Table) -> Table:
    """An astropy table whose units FITS and VOTable have; the description names any other."""
    plain = astropy_table(table)
    for column in plain.itercols():
        if column.unit is not None and str(column.unit) in UNWRITABLE_UNITS:
            column.description = f"{column.description or column.name} [{column.unit}]"
            column.unit = None
    return plain


_WRITERS = {
    ".parquet": _write_parquet,
    ".fits": _write_fits,
    ".ecsv": _write_ecsv,
    ".vot": _write_votable,
    ".csv": _write_csv,
}
FORMATS = tuple(_WRITERS)
"""The endings a catalogue may have."""
