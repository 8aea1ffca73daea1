"""Kill commands at random moments, give each again, and compare with a run that nothing disturbed.

    python benchmarks/kills.py --kills 60 [--seed 1] [--only predict_folder,train]

Inputs are simulated and made on the spot. Every kill is a SIGKILL of the command's own process or,
for ``predict_workers``, of any process of its group. Prints a line per command: kills that fell
into the work, runs whose outputs differ afterwards (should be 0), processes left behind (0).
``fetch`` is killed in ``tests/test_fetch_kill.py``, beside the services it needs. Needs the extras
``library`` and ``lsdb``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bulk_files import make
from xplabels import simulate_stars, write_stars

RECIPE = """
name = "small"
hidden = [24]
epochs = 60
batch_size = 128
missing_fraction = 0.0
flux_samples = 0
reddening = 0.0
calibration_folds = 2
"""
DATA = (".parquet", ".safetensors", ".fits", ".csv")
LEFT_AFTER = 5.0
"""Seconds after which no process of a killed command may be alive."""


def bulk(folder: Path, files: int = 6, stars: int = 500) -> None:
    """Files of the archive's bulk download."""
    make(folder / "in", stars, files=files, distinct=100)


def training(folder: Path) -> None:
    """A star table and a small recipe."""
    write_stars(simulate_stars(2000, labels=("teff", "logg"), seed=2)[0], folder / "stars.parquet")
    (folder / "small.toml").write_text(RECIPE)


def selection(folder: Path) -> None:
    """Spectra, and a table of labels of the user's own in which every third star is bad."""
    stars, truth = simulate_stars(20_000, labels=("teff", "logg"), widths=(20, 20), seed=4)
    write_stars(stars.with_labels(None), folder / "xp.parquet")
    rows = [
        f"{star},{teff:.1f},50,{logg:.3f},0.1,{n % 3 == 0:d}"
        for n, (star, (teff, logg)) in enumerate(zip(stars.source_id, truth.values, strict=True))
    ]
    text = "\n".join(["source_id,teff,teff_err,logg,logg_err,bad", *rows])
    (folder / "mine.csv").write_text(text + "\n")


COMMANDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "predict_file": (bulk, "predict in --output labels.fits"),
    "predict_folder": (bulk, "predict in --output labels"),
    "predict_workers": (bulk, "predict in --output labels --workers 2"),
    "train": (
        training,
        "train stars.parquet --labels teff,logg --recipe small.toml --output model",
    ),
    "convert": (bulk, "convert in --output hats"),
    "select": (
        selection,
        "select xp.parquet --table own=mine.csv --output training.parquet",
    ),
    "library": (lambda folder: None, "library --output library.parquet"),
}


def start(words: str, folder: Path) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "xplabels.cli", *words.split()],
        cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.txt").open("ab"),
    )  # fmt: skip


def finished(words: str, folder: Path) -> float:
    """Run the command to its end; seconds."""
    begun = time.perf_counter()
    status = start(words, folder).wait()
    if status:
        text = (folder / "stderr.txt").read_text()[-1500:]
        raise SystemExit(f"xplabels {words}: status {status}\n{text}")
    return time.perf_counter() - begun


def outputs(folder: Path, inputs: set[Path]) -> dict[str, str]:
    """Hashes of all data files that were not there before, and names of all others."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name not in inputs and name.name != "stderr.txt":
            data = path.suffix in DATA
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest() if data else ""
    return found


def group(leader: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgid = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgid) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def kill(words: str, folder: Path, after: float, any_process: bool) -> tuple[bool, int]:
    """Kill the command; whether it was still at work, and how many processes stayed alive."""
    process = start(words, folder)
    time.sleep(after)
    alive = process.poll() is None
    if alive:
        chosen = random.choice(group(process.pid) or [process.pid]) if any_process else process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(chosen, signal.SIGKILL)
        if chosen != process.pid:  # the run goes on without its worker
            process.wait()
    process.wait()
    end = time.monotonic() + LEFT_AFTER
    while group(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    left = len(group(process.pid))
    if left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return alive, left


def main() -> None:
    """Kill what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60, help="over all commands")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(COMMANDS), metavar="COMMANDS")
    args = parser.parse_args()
    random.seed(args.seed)
    chosen = args.only.split(",")
    bad = 0
    for name, kills in zip(chosen, np.diff(np.linspace(0, args.kills, len(chosen) + 1).astype(int)),
                           strict=True):  # fmt: skip
        prepare, words = COMMANDS[name]
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            prepare(made)
            inputs = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}

            def fresh(label: str, made: Path = made) -> Path:
                return shutil.copytree(made, made.parent / label)

            calm = fresh("calm")
            seconds = finished(words, calm)
            expected = outputs(calm, inputs)
            hits = different = left = 0
            for number in range(kills):
                folder = fresh(f"killed{number}")
                after = random.uniform(0.1, 1.0) * seconds
                alive, behind = kill(words, folder, after, name == "predict_workers")
                hits, left = hits + alive, left + behind
                if outputs(folder, inputs) != expected:  # else it was killed when all was done
                    finished(words, folder)
                if outputs(folder, inputs) != expected:
                    different += 1
                    found = outputs(folder, inputs)
                    names = sorted(set(found.items()) ^ set(expected.items()))
                    print(f"  {name}, killed after {after:.2f} s: {names[:6]}")
                shutil.rmtree(folder)
        bad += different + left
        print(f"{name:16s} {kills:3d} kills, {hits} in the work ({seconds:.1f} s), "
              f"{different} differ, {left} processes left", flush=True)  # fmt: skip
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
