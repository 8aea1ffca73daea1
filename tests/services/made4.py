"""A small made archive of Gaia DR4, after ESA's draft data model: nobody has seen the release yet.

Some stars are outside ``gaia_source``, and have photometry in ``all_source_photometry`` only; who
has a spectrum stands in ``all_source_flags``; there is no excess factor, and no AllWISE.
"""

from __future__ import annotations

import numpy as np

from archive_files import fake_stars
from services.made import MadeArchive, Table, made_archive, single, with_nulls

WIDTHS = (51, 55)
BANDS = ("g", "bp", "rp")


def made_dr4(stars: int, widths: tuple[int, int] = WIDTHS) -> MadeArchive:
    """``stars`` made stars under DR4's names; the last quarter is outside ``gaia_source``."""
    old = made_archive(stars)
    rng = np.random.default_rng(4)
    source = dict(old.tables["gaiadr3.gaia_source"])
    has = source.pop("has_xp_continuous")
    del source["phot_bp_rp_excess_factor"]
    for band in BANDS:
        source[f"phot_{band}_mean_flux"] = rng.uniform(1e3, 1e5, stars).tolist()
    photometry = {
        name: values
        for name, values in source.items()
        if name.startswith(("phot_", "source_id", "bp_rp"))
    }
    inside = stars - stars // 4
    spectra = fake_stars(sum(has), widths)
    spectra.source_id = [one for one, known in zip(source["source_id"], has, strict=True) if known]
    ids = source["source_id"]
    tables: dict[str, Table] = {
        "gaiadr4.gaia_source": {name: values[:inside] for name, values in source.items()},
        "gaiadr4.all_source_photometry": photometry,
        "gaiadr4.all_source_astrometry": {
            name: source[name] for name in ("source_id", "ra", "dec", "parallax", "parallax_error")
        },
        "gaiadr4.all_source_flags": {"source_id": ids, "has_xp": has, "has_epoch_xp": [0] * stars},
        "gaiadr4.dr3_neighbourhood": neighbourhood(ids),
    }
    for name in ("gaiadr1.tmass_original_valid", "gaiadr3.tmass_psc_xsc_best_neighbour"):
        tables[name.replace("gaiadr3", "gaiadr4")] = old.tables[name]
    near = dict(old.tables["gaiadr3.allwise_best_neighbour"])
    names = [f"J{number:06d}.00+000000.0" for number in range(len(near["source_id"]))]
    tables["gaiadr4.catwise2020_best_neighbour"] = near | {"original_ext_source_id": names}
    rows = len(names)
    catwise: Table = {"name": names, "abf": ["00"] * rows, "ccf": ["0000"] * rows}
    for band in ("w1", "w2"):
        catwise[f"{band}mpro_pm"] = with_nulls(single(rng, 7, 17, rows), rng)
        catwise[f"e_{band}mpro_pm"] = with_nulls(single(rng, 0.01, 0.3, rows), rng)
    tables["external.catwise2020"] = catwise
    return MadeArchive(spectra, tables)


def neighbourhood(ids: list[int]) -> Table:
    """Ids of DR3 are 7 less, but: the first star kept its own, the second is two of DR3, the third
    and fourth are one of DR3, the fifth is new."""
    pairs = [(one, one - 7) for one in ids]
    first, second, third, fourth, fifth = ids[:5]
    pairs[0] = (first, first)
    pairs[3] = (fourth, third - 7)
    pairs = [pair for pair in pairs if pair[0] != fifth] + [(second, second - 8)]
    probable = [pair[0] != fourth and pair != (second, second - 8) for pair in pairs]
    return {
        "source_id": [new for new, _ in pairs],
        "dr3_source_id": [old for _, old in pairs],
        "angular_distance": [0.5 if good else 80.5 for good in probable],
        "magnitude_difference": [0.01 if good else 1.5 for good in probable],
        "proper_motion_propagation": [True] * len(pairs),
        "probable_match": probable,
    }
