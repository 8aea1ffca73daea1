"""A prediction as a catalogue file, in the format that its ending names.

Units, UCDs, descriptions and provenance go as far as each format holds them: FITS and VOTable
have no unit ``dex`` (the description says it instead), VOTable takes provenance as INFO elements,
CSV holds names and numbers only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_output, whole_file

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.io.fits import BinTableHDU
    from astropy.table import Table

    from xplabels.core.prediction import Prediction

FORMATS = (".parquet", ".fits", ".ecsv", ".vot", ".csv")
"""The endings a catalogue may have."""

UNWRITABLE_UNITS = {"dex"}
"""Units that neither the FITS nor the VOTable standard knows."""


def check_catalogue(path: Path, overwrite: bool = False) -> None:
    """Make sure, before any work, that a catalogue can be written to ``path``.

    Raises
    ------
    InputError
        If the ending is unknown, the file exists and ``overwrite`` is false, or the folder is
        absent or cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"the ending {path.suffix!r} names no catalogue format",
            where=path,
            remedy=f"end the name in one of {', '.join(FORMATS)}, or make a folder of that name",
        )
    if path.is_dir():
        raise InputError("is a folder", where=path, remedy="name a file")
    check_output(path, overwrite)


def write_catalogue(prediction: Prediction, path: str | Path, overwrite: bool = False) -> None:
    """Write a prediction to ``path``; the ending chooses the format (:data:`FORMATS`).

    The file appears whole or not at all.

    Raises
    ------
    InputError
        See :func:`check_catalogue`; if the disk fills up.
    """
    path = Path(path)
    check_catalogue(path, overwrite)
    write_table(prediction.to_table(), path, overwrite)


def write_table(table: Table, path: Path, overwrite: bool = False) -> None:
    """Write a catalogue's table (as :meth:`Prediction.to_table` makes it) to ``path``."""
    writers = {
        ".parquet": _write_parquet,
        ".fits": _write_fits,
        ".ecsv": _write_ecsv,
        ".vot": _write_votable,
        ".csv": _write_csv,
    }
    with whole_file(path, overwrite) as temporary:
        writers[path.suffix.lower()](table, temporary)


def to_arrow(table: Table) -> pa.Table:
    """The table as Arrow: unit, UCD and description in field metadata, the rest in the schema's."""
    import pyarrow as pa

    fields = []
    for column in table.itercols():
        told = {
            "unit": "" if column.unit is None else str(column.unit),
            "ucd": column.meta.get("ucd", ""),
            "description": column.description or "",
        }
        kept = {key: text for key, text in told.items() if text}
        fields.append(pa.field(column.name, pa.from_numpy_dtype(column.dtype), metadata=kept))
    schema = pa.schema(fields, metadata=meta_text(table.meta))
    return pa.table([pa.array(column.data) for column in table.itercols()], schema=schema)


def from_arrow(arrow: pa.Table) -> Table:
    """The inverse of :func:`to_arrow`; metadata come back as text."""
    from astropy.table import Column, Table

    def decoded(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
        return {key.decode(): text.decode() for key, text in (metadata or {}).items()}

    table = Table(meta=decoded(arrow.schema.metadata))
    for field in arrow.schema:
        told = decoded(field.metadata)
        table[field.name] = Column(
            arrow[field.name].to_numpy(),
            unit=told.get("unit"),
            description=told.get("description"),
            meta={"ucd": told["ucd"]} if "ucd" in told else None,
        )
    return table


def meta_text(meta: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as text: strings as they are, anything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in meta.items()
    }


def _write_parquet(table: Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(to_arrow(table), path, compression="zstd")


def _write_ecsv(table: Table, path: Path) -> None:
    plain = table.copy(copy_data=False)
    plain.meta = meta_text(table.meta)
    plain.write(path, format="ascii.ecsv")


def _write_csv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.csv", fast_writer=True)


def _write_fits(table: Table, path: Path) -> None:
    from astropy.io import fits

    plain = _without_foreign_units(table)
    plain.meta = {}
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
    _put_meta(hdu, table.meta)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def _put_meta(hdu: BinTableHDU, meta: Mapping[str, Any]) -> None:
    """Short entries become cards; what a card cannot hold becomes HISTORY."""
    for key, text in meta_text(meta).items():
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


def _write_votable(table: Table, path: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    plain = _without_foreign_units(table)
    plain.meta = {}
    file = from_table(plain)
    for key, text in meta_text(table.meta).items():
        file.resources[0].infos.append(Info(name=key, value=text))
    file.to_xml(str(path), tabledata_format="binary2")


def _without_foreign_units(table: Table) -> Table:
    """A copy whose units FITS and VOTable know; the description names any other."""
    plain = table.copy(copy_data=False)
    for column in plain.itercols():
        column.meta = dict(column.meta)
        if column.unit is not None and str(column.unit) in UNWRITABLE_UNITS:
            column.description = f"{column.description or column.name} [{column.unit}]"
            column.unit = None
    return plain
