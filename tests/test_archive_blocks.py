"""A star table written block by block is the one written at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, Stars
from xplabels.io import read_stars, write_star_blocks


def test_blocks_are_the_whole(small_stars: Stars, tmp_path: Path) -> None:
    blocks = (small_stars[start : start + 300] for start in range(0, len(small_stars), 300))
    assert write_star_blocks(blocks, tmp_path / "blocks.parquet") == len(small_stars)
    found = read_stars(tmp_path / "blocks.parquet")
    np.testing.assert_array_equal(found.source_id, small_stars.source_id)
    np.testing.assert_array_equal(found.photometry.values, small_stars.photometry.values)
    for band in ("bp", "rp"):
        one, other = getattr(found.spectra, band), getattr(small_stars.spectra, band)
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
        np.testing.assert_array_equal(one.correlations, other.correlations)


def test_a_column_that_a_later_block_lacks_is_missing_there(
    small_stars: Stars, tmp_path: Path
) -> None:
    bare = small_stars[10:20].with_photometry(Photometry.missing(10))
    write_star_blocks([small_stars[:10], bare], tmp_path / "blocks.parquet")
    values, _ = read_stars(tmp_path / "blocks.parquet").photometry.column("j_m")
    assert np.isfinite(values[:10]).any()
    assert np.isnan(values[10:]).all()


def test_blocks_that_differ_are_told_and_nothing_is_written(
    small_stars: Stars, tmp_path: Path
) -> None:
    path = tmp_path / "blocks.parquet"
    bare = small_stars[:10].with_photometry(Photometry.missing(10))
    with pytest.raises(InputError, match=r"columns that the first lacks: .*j_m"):
        write_star_blocks([bare, small_stars[10:20]], path)
    wide = replace(
        small_stars[10:20],
        spectra=replace(small_stars.spectra[10:20], rp=small_stars.spectra[10:20].bp),
    )
    with pytest.raises(InputError, match="differs from the first in column 'rp_coefficients'"):
        write_star_blocks([small_stars[:10], wide], path)
    with pytest.raises(InputError, match="no stars"):
        write_star_blocks([], path)
    assert not list(tmp_path.iterdir())
