"""How fast ``xplabels predict`` labels bulk files, and in how much memory: sections of speed.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bulk_files import make

SKY = 219_197_643
"""Stars with XP spectra in DR3."""
SKY_FILES = 8
"""Made files of the section sky."""


def end_to_end(
    folder: Path, name: str, stars: int, gaiaxpy_us: float | None, count: int
) -> dict[str, Any]:
    """csv.gz -> a folder of catalogues by ``xplabels predict``, with one worker and with two.

    What counts is what each file took, as its manifest entry says, once its process is warm: the
    archive's files have thirty times as many rows.
    """
    paths = make(folder / "sky", stars, files=SKY_FILES)
    for path in (folder / "sky").glob("GaiaSource*"):
        path.unlink()
    ones, ratios, memory = [], [], 0.0
    for number in range(count):
        one = labelled(folder, name, f"one{number}", paths, 1)
        two = labelled(folder, name, f"two{number}", paths, 2)
        ones.append(np.median([entry["processor_seconds"] for entry in one.entries]))
        walls = [np.median([entry["seconds"] for entry in run.entries]) for run in (one, two)]
        ratios.append(2 * walls[0] / walls[1])
        memory = max(memory, one.memory, two.memory)
    us = 1e6 * float(np.median(ones)) / stars
    found = {
        "us_per_star": round(us, 1),
        "core_hours_for_the_sky": round(us * SKY / 3.6e9, 1),
        "peak_memory_mib": round(memory),
        "two_workers_over_one": round(float(np.median(ratios)), 2),
        "two_processes_that_only_multiply_over_one": round(machine_limit(), 2),
        "stars_per_file": stars,
        "files": SKY_FILES,
        "rounds": count,
    }
    if gaiaxpy_us is not None:
        found["times_gaiaxpy_reading"] = round(gaiaxpy_us / us, 2)
    print(f"\ncsv.gz -> catalogue with {name}: {json.dumps(found)}")
    return found


class Labelled(NamedTuple):
    """A run: the entries of files at which its processes were warm, and MiB of the largest one."""

    entries: list[dict[str, Any]]
    memory: float


def labelled(folder: Path, name: str, output: str, paths: list[Path], workers: int) -> Labelled:
    """Run the command."""
    words = [
        sys.executable, "-m", "xplabels.cli", "predict", *map(str, paths), "--model", name,
        "--output", str(folder / output), "--workers", str(workers),
    ]  # fmt: skip
    measured = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    told = subprocess.run(
        [sys.executable, "-c", measured, *words], check=True, capture_output=True, text=True
    )
    entries = [
        json.loads(path.read_text()) for path in (folder / output).glob("_manifest/Xp*.json")
    ]
    # an entry is written when its file is through: the first of each process is not counted
    written = sorted((folder / output).glob("_manifest/Xp*.json"), key=lambda p: p.stat().st_mtime)
    warm = {path.stem for path in written[workers:]}
    kept = [entry for entry in entries if Path(entry["output"]["name"]).stem in warm]
    return Labelled(kept, int(told.stdout) / 1024)


def machine_limit() -> float:
    """How much more two processes multiply than one: what the machine has of two cores."""
    multiply = (
        "import time, torch\n"
        "torch.set_num_threads(1)\n"
        "a, end, n = torch.rand(512, 512), time.time() + 2, 0\n"
        "while time.time() < end: torch.mm(a, a); n += 1\n"
        "print(n)"
    )

    def processes(count: int) -> int:
        running = [
            subprocess.Popen([sys.executable, "-c", multiply], stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        return sum(int(one.communicate()[0]) for one in running)

    return float(np.median([processes(2) / processes(1) for _ in range(3)]))


def memory(folder: Path, name: str, stars: int) -> dict[str, Any]:
    """The largest resident size of a process that labels one large file, GaiaSource joined."""
    paths = make(folder / "large", stars, quick=True)
    size = paths[0].stat().st_size
    run = labelled(folder, name, "large_labels", paths, 1)
    found = {
        "stars": stars,
        "gigabytes": round(size / 1e9, 2),
        "peak_memory_mib": round(run.memory),
    }
    print(f"\none large file: {json.dumps(found)}")
    return found
