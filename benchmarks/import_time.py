"""How long `import xplabels` takes beyond numpy and pyarrow, each time in a new process.

    python benchmarks/import_time.py --output benchmarks/results

Every process imports numpy and pyarrow first, untimed, then times one more import. `heavy` are
libraries that it loaded and that a plain import must not; names of the package load what they
need when they are first asked for, which the last two imports pay. The first process of each
kind, which may find nothing in the file cache, is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from common import RESULTS, options, write_json

IMPORTS = (
    "import xplabels",
    "import xplabels.cli",
    "from xplabels import Labels, Photometry, Stars, read, write_stars",
    "from xplabels import *",  # with the network: torch
)
HEAVY = ("torch", "astropy", "matplotlib", "scipy", "pandas", "lsdb", "dask", "gavo",
         "astroquery", "pyvo", "requests", "gaiaxpy")  # fmt: skip
AIM_SECONDS = 0.5
SCRIPT = """
import sys, time
import numpy, pyarrow
before = set(sys.modules)
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, *(set(sys.modules) - before))
"""


def once(statement: str) -> tuple[float, set[str]]:
    """Seconds that the import takes in a process of its own, and what it loads."""
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(statement=statement)],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return float(told[0]), set(told[1:])


def run(repeats: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "what": "seconds of one import after numpy and pyarrow, see benchmarks/import_time.py",
        "repeats": repeats, "aim_seconds": AIM_SECONDS, "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
    }  # fmt: skip
    for statement in IMPORTS:
        once(statement)
        times = []
        for _ in range(repeats):
            seconds, loaded = once(statement)
            times.append(seconds)
        told[statement] = {
            "median": median(times), "least": min(times), "most": max(times),
            "modules": len(loaded), "heavy": sorted(loaded & set(HEAVY)),
        }  # fmt: skip
    return told


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    results = run(args.repeats)
    print(json.dumps(results, indent=2))
    write_json(args.output / "import_time.json", results, indent=2)


if __name__ == "__main__":
    main()
