"""The public HATS collection of DR3's spectra -> the archive's columns.

The Multimodal Universe keeps both bands in one nested column, ``spectral_coefficients`` (``coeff``
and ``coeff_error``, BP before RP; no correlations), Gaia's photometry, astrometry and flags in
structs, and calls the source_id ``object_id``. Its own builder (MultimodalUniverse,
``scripts/gaia/merge_parts.py``) joins the bands in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xplabels.core.errors import InputError
from xplabels.io.forms import fields_of

ArrowArray = Any

KEY, SPECTRA = "object_id", "spectral_coefficients"
BP_WIDTH = WIDTH = 55
"""Coefficients of each band in DR3."""
PARTS = {"coeff": "coefficients", "coeff_error": "coefficient_errors"}
STRUCTS = {
    "photometry": (
        *(
            f"phot_{band}_mean_{quantity}"
            for band in ("g", "bp", "rp")
            for quantity in ("mag", "flux", "flux_error")
        ),
        "phot_bp_rp_excess_factor",
    ),
    "astrometry": ("parallax", "parallax_error"),
    "flags": ("ruwe",),
}
"""What is taken of each struct."""
NEEDED = (
    KEY,
    *(f"{SPECTRA}.{part}" for part in PARTS),
    *(f"{struct}.{name}" for struct, names in STRUCTS.items() for name in names),
)
"""The Parquet columns that labels need."""


def is_nested(names: Iterable[str]) -> bool:
    """Whether these are the columns of the public collection."""
    return {KEY, SPECTRA} <= {*names}


def archive_columns(columns: Mapping[str, ArrowArray], path: Path) -> dict[str, ArrowArray]:
    """Arrow columns of one record batch under the archive's names, those that labels need.

    The columns of any other table pass unchanged.

    Raises InputError if a row does not have 55 + 55 coefficients and errors, or none.
    """
    if not is_nested(columns):
        return dict(columns)
    import pyarrow as pa
    import pyarrow.compute as pc

    given: dict[str, ArrowArray] = {"source_id": columns[KEY]}
    arrays = fields_of(columns[SPECTRA])
    for part, name in PARTS.items():
        rows = arrays[part]
        lengths = pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~np.isin(lengths, (0, 2 * WIDTH)))
        if len(wrong):
            raise InputError(
                f"has {lengths[wrong[0]]} values, not {WIDTH} of BP and {WIDTH} of RP",
                where=f"{path}, object_id {columns[KEY][int(wrong[0])]}, column {SPECTRA}.{part}",
                remedy="give a collection of DR3's spectra",
            )
        values = np.full((len(rows), 2 * WIDTH), np.nan, np.float32)
        values[lengths > 0] = (
            pc.list_flatten(rows).to_numpy(zero_copy_only=False).reshape(-1, 2 * WIDTH)
        )
        for band, half in zip(("bp", "rp"), np.split(values, [BP_WIDTH], axis=1), strict=True):
            flat = pa.array(np.ascontiguousarray(half).reshape(-1))
            given[f"{band}_{name}"] = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
    for struct, names in STRUCTS.items():
        if struct in columns:
            given |= {n: a for n, a in fields_of(columns[struct]).items() if n in names}
    for band in ("g", "bp", "rp"):
        flux, error = (given.pop(f"phot_{band}_mean_flux{end}", None) for end in ("", "_error"))
        if flux is not None and error is not None:
            given[f"phot_{band}_mean_flux_over_error"] = pc.divide(flux, error)
        else:  # a magnitude is of no use without its error
            given.pop(f"phot_{band}_mean_mag", None)
    return given
