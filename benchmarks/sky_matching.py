"""Gaia stars matched with an unWISE-like catalogue on the sky, against the truth of a made sky.

    python benchmarks/sky_matching.py --output benchmarks/results

100,000 simulated stars in four square degrees (unWISE's density in the plane), 80 % of which have
a source; as many sources are no star's. Two HATS catalogues are written, then matched within 1
arcsec: with proper motions and without, in one process and on a Dask cluster of two workers.
Needs the extra `lsdb`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from common import RESULTS, options, write_json
from made_sky import MadeSky, make_sky, write_hats
from xplabels.sky import SkyMatches, match_on_sky

RADIUS = 1.0
FAST = 100.0
"""mas/yr: from here on a star counts as fast."""


def score(sky: MadeSky, matches: SkyMatches, fast_only: bool = False) -> dict[str, float]:
    """Completeness (of stars that have a source) and purity (of matches), with their N."""
    row_of = {name: row for row, name in enumerate(sky.sources["unwise_objid"])}
    ids = sky.stars["source_id"]
    order = np.argsort(ids)
    star = order[np.searchsorted(ids[order], matches.columns["source_id"])]
    row = np.array([row_of[name] for name in matches.columns["unwise_objid"]])
    of_interest = np.ones(len(ids), bool)
    if fast_only:
        of_interest = np.hypot(sky.stars["pmra"], sky.stars["pmdec"]) > FAST
    chosen = of_interest[star]
    right = int((sky.counterpart[star] == row)[chosen].sum())
    have = int((sky.counterpart[of_interest] >= 0).sum())
    return {
        "stars_with_source": have,
        "matches": int(chosen.sum()),
        "completeness": right / have,
        "purity": right / int(chosen.sum()),
    }


def timed(stars: Path, sources: Path, sky: MadeSky, workers: int) -> tuple[SkyMatches, float]:
    start = time.perf_counter()
    matches = match_on_sky(
        stars, sources, survey="unwise", radius=RADIUS, epoch=sky.epoch, workers=workers
    )
    return matches, time.perf_counter() - start


def equal(one: SkyMatches, other: SkyMatches) -> bool:
    return one.columns.keys() == other.columns.keys() and all(
        np.array_equal(one.columns[name], other.columns[name]) for name in one.columns
    )


def run(stars: int, seed: int) -> dict[str, Any]:
    sky = make_sky(stars, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        write_hats(sky, folder, margin=60.0)
        writing = time.perf_counter() - start
        gaia, unwise = folder / "gaia", folder / "unwise"
        timed(gaia, unwise, sky, 1)  # imports and compilation
        one, seconds = timed(gaia, unwise, sky, 1)
        two, seconds_two = timed(gaia, unwise, sky, 2)
        still = {k: v for k, v in sky.stars.items() if not k.startswith("pm")}
        Table(still).write(folder / "still.fits")
        unmoved, _ = timed(folder / "still.fits", unwise, sky, 1)
    flags = one.columns["match_flags"]
    return {
        "what": "simulated stars and sources, see benchmarks/sky_matching.py",
        "stars": stars, "sources": len(sky.sources["ra"]), "seed": seed,
        "radius_arcsec": RADIUS, "years": 2016.0 - sky.epoch, "cpus": os.cpu_count(),
        "all": score(sky, one), "fast": score(sky, one, fast_only=True),
        "all_without_motion": score(sky, unmoved),
        "fast_without_motion": score(sky, unmoved, fast_only=True),
        "flagged": {"several": int((flags & 1 > 0).sum()), "shared": int((flags & 2 > 0).sum())},
        "seconds_writing_hats": writing, "seconds_one_process": seconds,
        "seconds_two_workers_with_start": seconds_two,
        "same_from_both": equal(one, two),
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--stars", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = run(args.stars, args.seed)
    print(json.dumps(results, indent=2))
    write_json(args.output / "sky_matching.json", results, indent=2)


if __name__ == "__main__":
    main()
