"""A small made archive: stars with spectra, and the archive's tables of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from archive_files import FakeStars, fake_stars

Table = dict[str, list[Any]]
"""Column -> values; None is null."""
DOUBLES = {
    "ra": (0, 360), "dec": (-90, 90), "l": (0, 360), "b": (-90, 90), "ref_epoch": (2016, 2017),
    "pmra": (-50, 50), "pmdec": (-50, 50), "parallax": (-1, 5),
}  # fmt: skip
"""Columns of gaia_source in double precision, and their ranges."""
SINGLES = {
    **dict.fromkeys(("pmra_error", "pmdec_error", "parallax_error"), (0.01, 0.5)),
    **{f"phot_{band}_mean_mag": (8, 17) for band in ("g", "bp", "rp")},
    **{f"phot_{band}_mean_flux_over_error": (50, 5000) for band in ("g", "bp", "rp")},
    "bp_rp": (0, 3), "phot_bp_rp_excess_factor": (1, 2), "ruwe": (0.8, 1.8),
}  # fmt: skip
SURVEYS = {
    "tmass": ("tmass_psc_xsc", "j_m h_m ks_m", "j_msigcom h_msigcom ks_msigcom"),
    "allwise": ("allwise", "w1mpro w2mpro", "w1mpro_error w2mpro_error"),
}
"""Name -> that of its table of best neighbours, magnitudes, errors."""


@dataclass(frozen=True)
class MadeArchive:
    """The stars that DataLink knows, and the tables that TAP publishes, by full name."""

    spectra: FakeStars
    tables: dict[str, Table]

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Every star, sorted."""
        full = ("gaiadr4.all_source_flags", "gaiadr3.gaia_source")
        name = next(name for name in full if name in self.tables)
        return np.sort(np.array(self.tables[name]["source_id"], np.int64))


def made_archive(stars: int) -> MadeArchive:
    """``stars`` made stars all over the sky, some of them without spectrum, 2MASS or AllWISE.

    Every seventh star has no spectrum; one star has no BP.
    """
    rng = np.random.default_rng(1)
    pixels = np.sort(rng.choice(12 * 4**8, stars, replace=False)).astype(np.int64)
    ids = (pixels << 43) + rng.integers(1, 1 << 43, stars)
    has = np.arange(stars) % 7 != 0
    spectra = fake_stars(int(has.sum()), (6, 5), without_bp=(1,))
    spectra.source_id = ids[has].tolist()
    source: Table = {"source_id": ids.tolist(), "random_index": list(range(stars))}
    source |= {name: rng.uniform(*ends, stars).tolist() for name, ends in DOUBLES.items()}
    source |= {name: single(rng, *ends, stars) for name, ends in SINGLES.items()}
    source["parallax"] = with_nulls(source["parallax"], rng)
    source["has_xp_continuous"] = has.tolist()
    tables = {"gaiadr3.gaia_source": source}
    for name, (matched, magnitudes, errors) in SURVEYS.items():
        near = ids[rng.random(stars) < 0.7]
        designations = [f"{name.upper()} J{number:08d}" for number in range(len(near))]
        tables[f"gaiadr3.{matched}_best_neighbour"] = {
            "source_id": near.tolist(),
            "original_ext_source_id": designations,
            "angular_distance": single(rng, 0, 1, len(near)),
            "number_of_mates": rng.integers(0, 2, len(near)).tolist(),
            "xm_flag": [8] * len(near),
        }
        rows = len(near) + 1  # the survey has stars that Gaia has not
        table: Table = {"designation": [*designations, "ELSEWHERE"], "ext_flag": [0] * rows}
        for columns, ends in ((magnitudes, (5, 15)), (errors, (0.01, 0.3))):
            for column in columns.split():
                table[column] = with_nulls(single(rng, *ends, rows), rng)
        texts = {"cc_flags": "0000", "var_flag": "1100", "ph_qual": "AABU"}
        table |= {column: [text] * rows for column, text in texts.items()}
        tables[f"gaiadr1.{name}_original_valid"] = table
    return MadeArchive(spectra, tables)


def single(rng: np.random.Generator, low: float, high: float, rows: int) -> list[float]:
    """As an archive's column of single precision has them."""
    return [float(value) for value in rng.uniform(low, high, rows).astype(np.float32)]


def with_nulls(values: list[Any], rng: np.random.Generator) -> list[Any]:
    hidden = rng.random(len(values)) < 0.1
    return [None if hide else value for value, hide in zip(values, hidden, strict=True)]
