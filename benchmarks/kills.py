"""Kill commands at random moments, give each again, and compare with a run that nothing disturbed.

    make soak                                      60 kills over every command that writes
    python benchmarks/kills.py --kills 100 [--seed 1] [--only predict_folder,train]

Inputs are simulated and made on the spot, the archive of ``fetch`` too (``tests/services``). Of
five kills three are SIGKILL, one is SIGTERM and one SIGINT, of the command's own process or, for
``predict_workers``, of any process of its group. Prints a line per command: kills that fell
into the work, runs whose outputs differ afterwards or left something behind, a temporary file
among them (should be 0), processes left (0), and ends that were not in one line with the right
status (0). Needs the extras ``archive``, ``lsdb`` and ``synthetic``.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from bulk_files import make
from common import options
from fetch_services import serving
from made_sky import make_sky, write_hats
from xplabels import simulate_stars, write_stars

RECIPE = """
name = "small"
hidden = [24]
epochs = 20
batch_size = 128
missing_fraction = 0.0
flux_samples = 0
reddening = 0.0
calibration_folds = 2
"""
DATA = (".parquet", ".safetensors", ".fits", ".csv", ".html")
NUMBERS = ("explain.json", "training.cuts.json")
"""JSON without times in it."""
LEFT_AFTER = 5.0
"""Seconds after which no process of a killed command may be alive."""
ENDS = {signal.SIGTERM: 143, signal.SIGINT: 130}
MODEL = "apogee-dr17-library"


def bulk(folder: Path, files: int = 6, stars: int = 500) -> None:
    """Files of the archive's bulk download."""
    make(folder / "in", stars, files=files, distinct=100)


def training(folder: Path) -> None:
    """A star table and a small recipe."""
    write_stars(simulate_stars(800, labels=("teff", "logg"), seed=2)[0], folder / "stars.parquet")
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


def sky(folder: Path) -> None:
    """HATS catalogues of Gaia stars and unWISE sources."""
    write_hats(make_sky(600, seed=5, area=1.6), folder, margin=60.0, partitions=4)


def sed(folder: Path) -> None:
    """A spectral energy distribution."""
    (folder / "sed.csv").write_text("wavelength,flux\n300,1e-17\n700,2e-17\n1100,1e-17\n")


def few_stars(folder: Path) -> None:
    """Two hundred stars."""
    stars = simulate_stars(200, labels=("teff", "logg", "fe_h", "alpha_m"), seed=3)[0]
    write_stars(stars, folder / "stars.parquet")


def nothing(folder: Path) -> None:
    """Inputs come with installed packages."""


COMMANDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "predict_file": (bulk, "predict in --output labels.fits"),
    "predict_folder": (bulk, "predict in --output labels"),
    "predict_workers": (bulk, "predict in --output labels --workers 2"),
    "train": (
        training,
        "train stars.parquet --labels teff,logg --recipe small.toml --output model",
    ),
    "convert": (bulk, "convert in --output hats"),
    "fetch": (
        nothing,
        "fetch --ids {ids} --output stars --tap {tap} --datalink {datalink} --chunk 5 "
        "--tap-chunk 10",
    ),
    "select": (
        selection,
        "select xp.parquet --table own=mine.csv --output training.parquet",
    ),
    "match": (sky, "match gaia unwise --radius 20 --output matches.parquet"),
    "giants": (nothing, "giants --copies 0 --output giants.parquet"),
    "simulate": (sed, "simulate sed.csv --g-mag 13,14 --draws 2000 --output sim.parquet"),
    "library": (nothing, "library --output library.parquet"),
    "explain": (
        few_stars,
        f"explain {MODEL} stars.parquet --range teff=:20000 --output explained",
    ),
}


@contextlib.contextmanager
def addresses(scratch: Path) -> Iterator[dict[str, object]]:
    """What stands for names in braces: a table of ids, and the services that know them."""
    with serving() as services:
        ids = scratch / "ids.txt"
        ids.write_text("\n".join(map(str, services.made.ids)) + "\n")
        services.datalink.delay = 0.02
        there = services.archive
        yield {"ids": ids, "tap": there.tap, "datalink": there.datalink}


def start(words: str, folder: Path) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "xplabels.cli", *words.split()],
        cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.txt").open("wb"), env=os.environ | {"TMPDIR": str(temporary)},
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
            data = path.suffix in DATA or path.name in NUMBERS
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


def end(words: str, folder: Path, after: float, any_process: bool) -> tuple[bool, int, str]:
    """End the command: whether it was at work, how many processes stayed, what was wrong."""
    process = start(words, folder)
    time.sleep(after)
    alive, wrong = process.poll() is None, ""
    if alive:
        how = random.choice([signal.SIGKILL] * 3 + list(ENDS))
        chosen = random.choice(group(process.pid) or [process.pid]) if any_process else process.pid
        if chosen != process.pid:
            how = signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(chosen, how)
        status = process.wait()
        text = (folder / "stderr.txt").read_text()
        # but for bars of progress
        lines = [ln for ln in text.replace("\r", "\n").splitlines() if ln.strip() and "|" not in ln]
        # before the command line is read Python ends by itself; after the work it is too late
        if how in ENDS and status not in (-how, 0) and (status != ENDS[how] or len(lines) != 1):
            wrong = f"{how.name}, status {status}: {text[-600:]}"
    process.wait()
    limit = time.monotonic() + LEFT_AFTER
    while group(process.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    left = len(group(process.pid))
    if left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return alive, left, wrong


def soak(name: str, kills: int, scratch: Path, names: dict[str, object]) -> int:
    """Kill one command so many times; how many of them did harm."""
    prepare, words = COMMANDS[name][0], COMMANDS[name][1].format(**names)
    made = scratch / "made"
    made.mkdir()
    prepare(made)
    inputs = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}

    def fresh(label: str) -> Path:
        return shutil.copytree(made, scratch / label)

    calm = fresh("calm")
    seconds = finished(words, calm)
    expected = outputs(calm, inputs)
    hits = different = left = wrong = 0
    for number in range(kills):
        folder = fresh(f"killed{number}")
        after = random.uniform(0.1, 1.0) * seconds
        alive, behind, why = end(words, folder, after, name == "predict_workers")
        hits, left, wrong = hits + alive, left + behind, wrong + bool(why)
        if outputs(folder, inputs) != expected:  # else it was killed when all was done
            finished(words, folder)
        found = outputs(folder, inputs)
        if found != expected:
            different += 1
            differing = sorted(set(found.items()) ^ set(expected.items()))
            print(f"  {name}, killed after {after:.2f} s: {differing[:6]}")
        if why:
            print(f"  {name}, ended after {after:.2f} s by {why}")
        shutil.rmtree(folder)
    print(f"{name:16s} {kills:3d} kills, {hits} in the work ({seconds:.1f} s), {different} differ, "
          f"{left} processes left, {wrong} ends of other kinds", flush=True)  # fmt: skip
    return different + left + wrong


def main() -> None:
    """Kill what the command line asks for."""
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=60, help="over all commands")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(COMMANDS), metavar="COMMANDS")
    args = parser.parse_args()
    random.seed(args.seed)
    chosen = args.only.split(",")
    shares = np.diff(np.linspace(0, args.kills, len(chosen) + 1).round().astype(int)).tolist()
    bad = 0
    for name, kills in zip(chosen, shares, strict=True):
        with tempfile.TemporaryDirectory() as place, addresses(Path(place)) as names:
            bad += soak(name, kills, Path(place), names)
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
