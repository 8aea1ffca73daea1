"""A small made archive: stars with spectra, and the archive's tables of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from archive_files import FakeStars, fake_stars

Table = dict[str, list[Any]]
"""Column -> values; None is null."""


@dataclass(frozen=True)
class MadeArchive:
    """What all services serve.

    Attributes
    ----------
    spectra
        The stars that DataLink knows.
    tables
        Full name -> table, as TAP publishes them.
    """

    spectra: FakeStars
    tables: dict[str, Table]

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Every star of gaia_source, sorted."""
        return np.sort(np.array(self.tables["gaiadr3.gaia_source"]["source_id"], np.int64))


def made_archive(stars: int, seed: int = 1, without_spectrum: int = 7) -> MadeArchive:
    """``stars`` made stars all over the sky, some of them without spectrum, 2MASS or AllWISE.

    Every ``without_spectrum``-th star has no spectrum; one star has no BP.
    """
    rng = np.random.default_rng(seed)
    pixels = np.sort(rng.choice(12 * 4**8, stars, replace=False)).astype(np.int64)
    ids = (pixels << 43) + rng.integers(1, 1 << 43, stars)
    has = np.arange(stars) % without_spectrum != 0
    spectra = fake_stars(int(has.sum()), (6, 5), without_bp=(1,))
    spectra.source_id = ids[has].tolist()
    near = rng.random(stars) < 0.8
    tmass, tmass_near = _external(ids[near], rng, "tmass")
    near = rng.random(stars) < 0.6
    allwise, allwise_near = _external(ids[near], rng, "allwise")
    tables = {
        "gaiadr3.gaia_source": _gaia_source(ids, has, rng),
        "gaiadr3.tmass_psc_xsc_best_neighbour": tmass_near,
        "gaiadr1.tmass_original_valid": tmass,
        "gaiadr3.allwise_best_neighbour": allwise_near,
        "gaiadr1.allwise_original_valid": allwise,
    }
    return MadeArchive(spectra, tables)


def _single(values: np.ndarray[Any, Any]) -> list[float]:
    """As an archive's column of single precision has them."""
    return [float(value) for value in values.astype(np.float32)]


def _with_nulls(values: list[Any], rng: np.random.Generator) -> list[Any]:
    hidden = rng.random(len(values)) < 0.1
    return [None if hide else value for value, hide in zip(values, hidden, strict=True)]


def _gaia_source(ids: Any, has: Any, rng: np.random.Generator) -> Table:
    stars = len(ids)
    table: Table = {"source_id": ids.tolist(), "random_index": list(range(stars))}
    for name, low, high in (
        ("ra", 0, 360), ("dec", -90, 90), ("l", 0, 360), ("b", -90, 90), ("ref_epoch", 2016, 2017),
        ("pmra", -50, 50), ("pmdec", -50, 50), ("parallax", -1, 5),
    ):  # fmt: skip
        table[name] = rng.uniform(low, high, stars).tolist()
    for name in ("pmra_error", "pmdec_error", "parallax_error"):
        table[name] = _single(rng.uniform(0.01, 0.5, stars))
    for band in ("g", "bp", "rp"):
        table[f"phot_{band}_mean_mag"] = _single(rng.uniform(8, 17, stars))
        table[f"phot_{band}_mean_flux_over_error"] = _single(rng.uniform(50, 5000, stars))
    table["bp_rp"] = _single(rng.uniform(0, 3, stars))
    table["phot_bp_rp_excess_factor"] = _single(rng.uniform(1, 2, stars))
    table["ruwe"] = _single(rng.uniform(0.8, 2, stars))
    table["parallax"] = _with_nulls(table["parallax"], rng)
    table["has_xp_continuous"] = [bool(value) for value in has]
    return table


def _external(ids: Any, rng: np.random.Generator, kind: str) -> tuple[Table, Table]:
    """A survey's own table, and Gaia's of the best neighbours in it."""
    stars = len(ids)
    names = [f"{kind.upper()} J{number:08d}" for number in range(stars)]
    near: Table = {
        "source_id": ids.tolist(),
        "original_ext_source_id": names,
        "angular_distance": _single(rng.uniform(0, 1, stars)),
        "number_of_mates": rng.integers(0, 2, stars).tolist(),
        "xm_flag": [8] * stars,
    }
    # the survey has stars that Gaia has not
    table: Table = {"designation": [*names, f"{kind.upper()} ELSEWHERE"]}
    if kind == "tmass":
        columns = [f"{band}_{part}" for band in ("j", "h", "ks") for part in ("m", "msigcom")]
        texts = {"ph_qual": "AAB"}
    else:
        columns = [f"w{band}mpro{end}" for band in (1, 2) for end in ("", "_error")]
        texts = {"cc_flags": "0000", "var_flag": "1100", "ph_qual": "AABU"}
        table["ext_flag"] = [0] * (stars + 1)
    for column in columns:
        low, high = (0.01, 0.3) if column.endswith(("com", "error")) else (5, 15)
        table[column] = _with_nulls(_single(rng.uniform(low, high, stars + 1)), rng)
    table |= {name: [text] * (stars + 1) for name, text in texts.items()}
    return table, near
