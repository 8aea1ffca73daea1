"""How columns of users' tables are interpreted, whatever file or table they come from.

A column is a pyarrow array or a numpy one (masked or not), of numbers, of text, or of one array per
row. Readers of files and of tables in memory pass their columns on unchanged; which names stand for
an identifier, what is null, and how text is read are defined only here.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.releases import spectra_columns

logger = logging.getLogger(__name__)

Column = Any
"""A pyarrow ``Array`` or ``ChunkedArray``, a numpy array, or a sequence of one array a row."""

SOURCE_ID = "source_id"
NOBODY = -(2**63)
"""The source_id of a row that belongs to no star, as it is null. (Surveys write 0, or -9999.)"""
NULL_WORDS = frozenset(
    ("", "null", "(null)", "nan", "-nan", "na", "n/a", "n.a.", "#n/a", "#na", "none", "<na>", "nat",
     "nil", "\\n", "-", "--", "---", "masked", "missing", "1.#ind", "-1.#ind", "1.#qnan",
     "-1.#qnan")
)  # fmt: skip
"""Texts, in lower case, that stand for a missing value in pandas and databases."""

_ID_NAME = re.compile(r"sourceid|(gaia)?(source)?(id|name)?(gaia)?e?dr3(source)?(id|name)?|source")
_NOT_AN_ID = frozenset(("dr3", "edr3"))
_OTHER_RELEASE = re.compile(r"(gaia|source|id|name)*dr[12](gaia|source|id|name)*")
_UNSAID_RELEASE = frozenset(("gaiasourceid", "gaiaid", "gaia"))
_ID_TEXT = re.compile(
    r"""[b=]?["']?\s*(?:gaia[\s_]*(e?dr\d+|fpr)[\s_]+)?(-?\d+)\s*["']?""", re.I | re.A
)
_RELEASES = ("DR3", "EDR3", "DR4")
"""Releases whose designations are accepted; EDR3's identifiers are the same as DR3's."""
WRITE_IDS = "write source_id in full, as in 5853498713190525696, as 64-bit integers or as text"

GRAIN = 128
"""Gaia's source_ids are multiples of this number, except for components of double stars."""
DOUBTFUL, IMPOSSIBLE = 1 / 500, 1e-9
"""If the chance that true source_ids would look as rounded is below the first number, a warning is
logged; below the second, they are refused."""


# --- names ----------------------------------------------------------------------------------


def names_of(
    names: Iterable[str], where: object, wanted: Collection[str] | None = None
) -> dict[str, str]:
    """This package's names of columns -> the table's, for columns ``wanted`` (None: all).

    Names are in lower case. The column of identifiers is called ``source_id``, whatever its name in
    the table (``GAIAEDR3_SOURCE_ID``, ``dr3_source_id``, ``Gaia DR3``, ...), and columns of spectra
    have this package's names, whatever a release calls them (``--release``).

    Raises InputError if two names differ in case only.

    Examples
    --------
    >>> names_of(["GaiaDR3_Source_ID", "Teff", "x"], "t.csv", ("source_id", "teff"))
    {'teff': 'Teff', 'source_id': 'GaiaDR3_Source_ID'}
    """
    found: dict[str, str] = {}
    listed, ours = list(names), spectra_columns()
    for name in listed:
        lower = name.strip().lower()
        lower = ours.get(lower, lower)
        if wanted is not None and lower not in wanted:
            continue
        if lower in found:
            raise InputError(
                f"columns {found[lower]!r} and {name!r} have the same name but for case"
                if found[lower] != name
                else f"two columns have the name {name!r}",
                where=where,
                remedy="leave one out",
            )
        found[lower] = name
    if SOURCE_ID not in found and (wanted is None or SOURCE_ID in wanted):
        # a column that is wanted by its own name, such as a designation, is not taken for the ids
        ids = _id_name([name for name in listed if name.strip().lower() not in (wanted or ())])
        if ids is not None:
            found[SOURCE_ID] = ids
    return found


def _id_name(names: Collection[str]) -> str | None:
    """The column of Gaia DR3's identifiers if not called ``source_id``; None if there is none.

    A column ``designation`` is the last choice, as other catalogues have one, too.
    """
    squashed = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names}
    matching = [s for s in squashed if _ID_NAME.fullmatch(s) and s not in _NOT_AN_ID]
    best = sorted(matching, key=lambda s: (s != "sourceid", s == "source", "name" in s))
    if not best and "designation" in squashed:
        best = ["designation"]
    return squashed[best[0]] if best else None


def no_ids(names: Collection[str], where: object) -> InputError:
    """The error to raise if no column of a table holds Gaia DR3's identifiers."""
    remedy = "name the column of Gaia source identifiers source_id"
    if value := next((name for name in names if re.fullmatch(r"\d{15,19}", name.strip())), None):
        what = f"its first line holds values ({value.strip()}), not the names of columns"
        remedy = "write their names as the first line, not as a comment"
        return InputError(what, where=where, remedy=remedy)
    for name in names:
        squashed = re.sub(r"[^a-z0-9]", "", name.lower())
        if _OTHER_RELEASE.fullmatch(squashed):
            what = f"column {name!r} holds identifiers of an earlier release of Gaia, not of DR3"
            remedy = "add a column source_id, by the archive's table dr2_neighbourhood"
            return InputError(what, where=where, remedy=remedy)
        if squashed in _UNSAID_RELEASE:
            what = f"column {name!r} does not say of which release of Gaia its identifiers are"
            remedy = "name it source_id if they are of DR3"
            return InputError(what, where=where, remedy=remedy)
    what = "column 'source_id' is absent"
    if names:
        what += f" (columns: {', '.join(map(str, names))[:150]})"
    return InputError(what, where=where, remedy=remedy)


@dataclass(frozen=True)
class FileTable:
    """One of the tables of a file."""

    label: str  # its name in messages
    names: Sequence[str]
    column: Callable[[str], Column]
    units: Mapping[str, str] = field(default_factory=dict)  # by name, where one is declared
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # descriptions and UCDs
    faults: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # row -> column, what


def alike(
    tables: Sequence[FileTable], wanted: Collection[str] | None, where: object
) -> list[dict[str, str]]:
    """The columns ``wanted`` (:func:`names_of`) of each of a file's tables that are read as one.

    Tables with source_ids are used or, if none has, those with most of the columns wanted; for all
    others, the result is empty. Raises InputError if the tables used differ in their columns.
    """
    chosen = [names_of(table.names, where, wanted) for table in tables]
    used = [SOURCE_ID in names for names in chosen]
    if not any(used):
        most = max(map(len, chosen), default=0)
        used = [len(names) == most > 0 for names in chosen]
    first = used.index(True) if any(used) else 0
    for n, table in enumerate(tables):
        if used[n] and chosen[n].keys() != chosen[first].keys():
            raise InputError(
                f"{tables[first].label} and {table.label} both have source_ids, but not the same "
                f"columns ({', '.join(sorted(chosen[n].keys() ^ chosen[first].keys()))[:150]})",
                where=where,
                remedy="write the table you mean to a file of its own",
            )
    return [names if is_used else {} for names, is_used in zip(chosen, used, strict=True)]


def flattened(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns with nested ones (structs, lists of structs) replaced by their fields, by name."""
    nested = [(name, fields_of(column), column) for name, column in columns.items()]
    count = Counter(field for name, fields, _ in nested for field in fields or (name,))
    flat: dict[str, Column] = {}
    for name, fields, column in nested:
        # a field's name that occurs twice, as in structs bp and rp, gets the struct's before it
        flat |= {
            field if count[field] == 1 else f"{name}_{field}": values
            for field, values in fields.items()
        } or {name: column}
    # tools that flatten a struct a with a field b write a.b: it is called b if no other column is
    last = [name.rpartition(".")[2] for name in flat]
    return {
        short if last.count(short) == 1 else name: column
        for short, (name, column) in zip(last, flat.items(), strict=True)
    }


def fields_of(column: Column) -> dict[str, Column]:
    """The fields of a pyarrow column of structs or of lists of structs (as lists); else none."""
    kind = getattr(column, "type", None)
    if kind is None:
        return {}
    import pyarrow as pa
    from pyarrow import compute, types

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        # with flatten(), unlike field(), a field is null where the struct is
        return flattened(dict(zip(names, whole.flatten(), strict=True)))
    lists = types.is_list(kind) or types.is_large_list(kind)
    if not lists or not types.is_struct(kind.value_type):
        return {}
    lengths = compute.fill_null(compute.list_value_length(whole), 0)
    ends = np.append(0, np.cumsum(lengths.to_numpy(zero_copy_only=False)))
    return {
        name: pa.LargeListArray.from_arrays(ends, values)
        for name, values in fields_of(whole.flatten()).items()
    }


# --- columns --------------------------------------------------------------------------------


def as_numpy(column: Column) -> NDArray[Any]:
    """A column as numpy: masked where integers are null; text as str objects, None where null."""
    if not hasattr(column, "null_count"):
        return np.asanyarray(column)
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_decimal(column.type):
        column = column.cast(pa.int64() if column.type.scale == 0 else pa.float64())
    if not column.null_count or not types.is_integer(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    null = column.is_null().to_numpy(zero_copy_only=False)
    return np.ma.array(column.fill_null(0).to_numpy(zero_copy_only=False), mask=null)


def source_ids(column: Column, where: object, name: str = SOURCE_ID) -> NDArray[np.int64]:
    """Gaia source_ids [N]; :data:`NOBODY` where null.

    Integers, floats that lost nothing, or text: ``N``, ``Gaia DR3 N`` or ``Gaia EDR3 N``.

    Raises InputError with row and value if one is none of these, or is of another release; and if
    all look as if they had been converted to floating-point numbers.

    Examples
    --------
    >>> source_ids(np.array(["Gaia DR3 5853498713190525696", ""], object), "t.csv").tolist()
    [5853498713190525696, -9223372036854775808]
    """
    ids = integers(column, where, name, NOBODY, id_of_text)
    check_rounding(ids, where, name)
    return ids


def integers(
    column: Column,
    where: object,
    name: str,
    null: int,
    of_text: Callable[[str, int, object, str], int],
) -> NDArray[np.int64]:
    """Identifiers or bit masks [N], ``null`` where missing, never converted by way of a float.

    ``of_text`` reads one text: :func:`id_of_text` or :func:`int_of_text`.

    Raises InputError with row and value if one is not a 64-bit integer.
    """
    texts = _arrow_text(column)
    if texts is not None and not texts.null_count:
        import pyarrow as pa

        with contextlib.suppress(pa.ArrowInvalid):  # nearly all are plain integers
            return np.array(texts.cast(pa.int64()).to_numpy(zero_copy_only=False))
    values = as_numpy(column if texts is None else texts)
    nulls, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.ndim != 1:
        raise InputError(
            "does not hold one identifier a row", where=f"{where}, column {name}", remedy=WRITE_IDS
        )
    if plain.dtype.kind in "OSU":
        ids = np.full(len(plain), null, np.int64)
        for row in np.flatnonzero(~nulls).tolist():
            text = _text(plain[row])
            if text.lower() not in NULL_WORDS:
                ids[row] = of_text(text, row, where, name)
        return ids
    if plain.dtype.kind == "f":
        # floats hold integers below 2^53 exactly, but not larger identifiers
        nulls = nulls | ~np.isfinite(plain)
        wrong = ~nulls & ((np.abs(plain) >= 2**53) | (plain % 1 != 0))
    elif plain.dtype.kind == "u":
        wrong = ~nulls & (plain >= 2**63)
    else:
        wrong = ~nulls & (plain.dtype.kind != "i")
    if wrong.any():
        _no_integer(plain[int(wrong.argmax())].item(), int(wrong.argmax()), where, name)
    return np.where(nulls, np.int64(null), np.where(nulls, 0, plain).astype(np.int64))


def _text(value: Any) -> str:
    """A cell of a column of text or of objects as text, ``""`` where it is null."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value is np.ma.masked or value != value:  # NaN
        return ""
    return str(value.item() if isinstance(value, np.generic) else value).strip()


def int_of_text(text: str, row: int, where: object, name: str) -> int:
    """One integer. ``row`` counts from 0. Raises InputError."""
    if not re.fullmatch(r"[-+]?\d{1,19}", text, re.A) or abs(int(text)) >= 2**63:
        _no_integer(text, row, where, name)
    return int(text)


def id_of_text(text: str, row: int, where: object, name: str = SOURCE_ID) -> int:
    """One identifier; :data:`NOBODY` for a null word. ``row`` counts from 0. Raises InputError."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if text.lower() in NULL_WORDS:
        return NOBODY
    match = _ID_TEXT.fullmatch(" ".join(text.split())) if len(text) < 100 else None
    if match is None or abs(int(match[2])) >= 2**63:
        _no_integer(text, row, where, name)
    release = (match[1] or "DR3").upper()
    if release not in _RELEASES:
        raise InputError(
            f"{text!r} is an identifier of Gaia {release}, not of DR3",
            where=f"{where}, row {row + 1}, column {name}",
            remedy="translate them by the archive's table dr2_neighbourhood",
        )
    return int(match[2])


def _no_integer(value: object, row: int, where: object, name: str) -> NoReturn:
    """Raise the InputError of a value that is not an integer."""
    text = str(value)[:60]
    what = f"{text!r} is not a 64-bit integer"
    if isinstance(value, float) or re.fullmatch(r"-?\d+(\.\d*|\.?\d*e\+?\d+)", text.lower()):
        what = f"{text} went through a floating-point number, which cannot hold its 19 digits"
    where, remedy = f"{where}, row {row + 1}, column {name}", WRITE_IDS.replace(SOURCE_ID, name)
    raise InputError(what, where=where, remedy=remedy)


def check_rounding(ids: NDArray[np.int64], where: object, name: str = SOURCE_ID) -> None:
    """Notice source_ids [N] that lost their last digits: in float64, or a spreadsheet's 15 digits.

    Logs a warning where that is likely; raises InputError where it is certain.
    """
    if len(ids) < 2 or not (large := ids[ids > 2**60]).size:
        return  # smaller ones are exact in float64
    spacing = np.int64(1) << (np.frexp(large.astype(np.float64))[1].astype(np.int64) - 53)
    spacing = np.maximum(spacing, GRAIN)
    zeros = next((n for n in (4, 3, 2) if not (large % 10**n).any()), 0)
    # ids that are all multiples of an even larger number were made so, not rounded
    if not (large % spacing).any() and (large // spacing % 2).any():
        chance = float(np.exp2(-np.log2(spacing / GRAIN).sum()))
        end = "after rounding to floating-point numbers"
    elif zeros and (large // 10**zeros % 10).any():
        chance = 5.0 ** (-zeros * len(large))
        end = f"numbers of {19 - zeros} digits, filled up with zeros"
    else:
        return
    what = f"all {counted(len(ids), 'source_id')} end as {end}: their last digits are lost"
    if chance < IMPOSSIBLE:
        raise InputError(what, where=f"{where}, column {name}", remedy=WRITE_IDS)
    if chance < DOUBTFUL:
        logger.warning("%s, column %s: it seems that %s", where, name, what)


def plain_column(column: Column) -> NDArray[Any]:
    """A column as numpy numbers or text [N].

    Integers and booleans stay as they are, or become float64 with NaN if some are null. Text in
    which all cells are numbers or null words becomes numbers; other text becomes str objects,
    ``""`` where null. Columns of arrays are returned unchanged.
    """
    if (texts := _arrow_text(column)) is not None:
        return numbers_or_text(texts)
    values = as_numpy(column)
    null, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    kind = plain.dtype.kind
    if kind in "SU" or (kind == "O" and all(_is_text(v) for v in plain.tolist())):
        import pyarrow as pa

        texts = ["" if n else _text(v) for v, n in zip(plain.tolist(), null, strict=True)]
        return numbers_or_text(pa.array(texts, pa.string()))
    if kind == "O":
        return plain if plain.ndim > 1 else _of_objects(plain, null)
    if null.any():
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    return np.asarray(plain.astype(plain.dtype.newbyteorder("="), copy=False))


def _is_text(value: object) -> bool:
    nan = isinstance(value, float) and value != value
    return isinstance(value, str | bytes) or value is None or nan


def _arrow_text(column: Column) -> Any:
    """A pyarrow column of text (or bytes, or categories of it) as strings; None of any other."""
    if isinstance(column, np.ndarray) or not hasattr(column, "type"):
        return None
    import pyarrow as pa
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary,
             types.is_large_binary)  # fmt: skip
    return column.cast(pa.string()) if any(is_text(kind) for is_text in texts) else None


def _of_objects(values: NDArray[Any], null: NDArray[np.bool_]) -> NDArray[Any]:
    """Python numbers, some of them None, as float64; anything else unchanged."""
    try:
        return np.array(
            [np.nan if n or v is None else v for v, n in zip(values, null, strict=True)], np.float64
        )
    except (TypeError, ValueError):
        return values


def numbers_or_text(column: Any) -> NDArray[Any]:
    """A pyarrow column of text as int64 if it can be, else float64, bool or text."""
    import pyarrow as pa
    from pyarrow import compute

    trimmed = compute.utf8_trim_whitespace(column)
    null = compute.is_in(compute.ascii_lower(trimmed), value_set=pa.array(sorted(NULL_WORDS)))
    trimmed = compute.if_else(null, pa.scalar(None, pa.string()), trimmed)
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            cast = trimmed.cast(kind)
        except pa.ArrowInvalid:
            continue
        if cast.null_count and kind != pa.float64():
            cast = cast.cast(pa.int8() if kind == pa.bool_() else kind)
            cast = cast.cast(pa.float64(), safe=False)
        return np.asarray(cast.to_numpy(zero_copy_only=False))
    return np.asarray(trimmed.fill_null("").to_numpy(zero_copy_only=False), object)


UNITS: dict[str, str] = {
    "parallax": "mas", "parallax_error": "mas", "ra": "deg", "dec": "deg", "pmra": "mas / yr",
    "pmdec": "mas / yr",
}  # fmt: skip
"""Column -> unit in which it is used; columns of magnitudes (:func:`unit_of`) are in mag."""
_MAGNITUDE = re.compile(
    r"phot_.*_mean_mag(_error)?|(j|h|k|ks)_(m|msigcom|cmsig)|w[12](m|sigm)pro.*"
)
_VEGA = re.compile(r"\W*(vega)?\W*(mags?|magnitudes?)\W*(vega)?\W*", re.I)


def unit_of(name: str) -> str | None:
    """The unit in which a column is used; None if it is not converted."""
    return "mag" if _MAGNITUDE.fullmatch(name) else UNITS.get(name)


def converted(values: NDArray[Any], name: str, unit: str | None, where: object) -> NDArray[Any]:
    """``values`` [N] of the column ``name`` in the unit in which it is used.

    ``unit`` is the declared one; if it is absent (or ``-``), the values are not converted.
    Raises InputError if the units cannot be converted.

    Examples
    --------
    >>> converted(np.array([0.001]), "parallax", "arcsec", "t.fits")
    array([1.])
    """
    wanted, declared = unit_of(name), (unit or "").strip()
    if (
        wanted is None
        or declared in ("", "-", "--", "---", wanted)
        or values.dtype.kind not in "iuf"
    ):
        return values
    if wanted == "mag" and _VEGA.fullmatch(declared):
        return values
    from astropy import units

    try:
        factor = units.Unit(declared).to(units.Unit(wanted))
    except (ValueError, TypeError) as error:  # not a unit, or of another kind
        raise InputError(
            f"its unit is {declared[:40]!r}, not {wanted}",
            where=f"{where}, column {name}",
            remedy=f"convert it to {wanted}, or declare no unit if it is in {wanted}",
        ) from error
    return np.asarray(values * factor)
