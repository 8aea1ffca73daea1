"""Nothing is lost: outputs that are inputs, two runs at once, signals, inputs that change."""

from __future__ import annotations

import errno
import gzip
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from xplabels import read, simulate_stars, write_stars
from xplabels.api import predict_files
from xplabels.cli import main
from xplabels.convert import convert_files
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.cuts.selecting import SelectOptions, select_stars
from xplabels.io.atomic import claimed, remove_leftovers, whole_file, whole_folder
from xplabels.io.plain import read_table
from xplabels.model import Model

CALM = subprocess.Popen([sys.executable, "-c", ""])  # a process that has ended when it is asked for


@pytest.fixture(scope="module")
def stars() -> Stars:
    return simulate_stars(60, labels=("teff",), widths=(3, 4), seed=1)[0]


@pytest.fixture
def folder(stars: Stars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    labelled(stars, tmp_path)
    (tmp_path / "sed.csv").write_text("wavelength,flux\n300,1e-17\n1100,1e-17\n")
    return tmp_path


def labelled(stars: Stars, folder: Path) -> None:
    """Stars, and a table of labels."""
    write_stars(stars, folder / "xp.parquet", overwrite=True)
    rows = [f"{star},5000,50" for star in stars.source_id]
    (folder / "mine.csv").write_text("\n".join(["source_id,teff,teff_err", *rows]) + "\n")


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    CALM.wait()
    return CALM.pid


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Outputs that are inputs -------------------------------------------------------------------------


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: predict_files([path], path, Model.load("apogee-dr17-library"), overwrite=True),
        lambda path: predict_files(
            [Path("xp.parquet")], path, Model.load("apogee-dr17-library"),
            photometry=[path], overwrite=True,
        ),
        lambda path: convert_files([path], path, overwrite=True),
        lambda path: convert_files([Path("xp.parquet")], path, gaia_source=path, overwrite=True),
        lambda path: select_stars(SelectOptions((path,)), path, overwrite=True),
        lambda path: select_stars(
            SelectOptions((Path("xp.parquet"),), (("own", Path("mine.csv")), ("own", path))),
            path, overwrite=True,
        ),
        lambda path: select_stars(
            SelectOptions((Path("xp.parquet"),), (("own", Path("mine.csv")),), {"own": path}),
            path, overwrite=True,
        ),
    ],
)  # fmt: skip
def test_an_input_is_never_written_over(
    write: Callable[[Path], object], link: Callable[[Path, Path], None] | None, folder: Path
) -> None:
    path = folder / "in.parquet"
    path.write_bytes((folder / "xp.parquet").read_bytes())
    before = {one: one.read_bytes() for one in folder.iterdir()}
    if link is not None:
        link(path, folder / "linked.parquet")
        path = folder / "linked.parquet"
    with pytest.raises(InputError, match=r"parquet: is also an input, which would be lost"):
        write(path)
    assert {one: one.read_bytes() for one in before} == before


def test_a_catalogue_of_a_folder_is_never_written_over_a_file_of_it(folder: Path) -> None:
    with pytest.raises(InputError, match=r"xp\.parquet: is also an input"):
        predict_files(
            [folder / "xp.parquet"], folder, Model.load("apogee-dr17-library"), overwrite=True
        )


@pytest.mark.parametrize("link", [None, os.symlink])
@pytest.mark.parametrize("command", ["fetch --ids", "convert"])
def test_a_folder_that_holds_an_input_is_not_replaced(
    command: str, link: Callable[[Path, Path], None] | None, folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = (
        folder
        / "old"
        / {"convert": "dataset/Norder=0/Dir=0/Npix=1.parquet"}.get(command, "ids.csv")
    )
    given.parent.mkdir(parents=True)
    given.write_text("source_id\n1\n")
    words = [*command.split(), str(given), "--output", "old", "--overwrite"]
    if link is not None:
        (folder / "in").mkdir()
        link(given, folder / "in" / given.name)
        words[-4] = "in" if command == "convert" else f"in/{given.name}"
    assert main(words) == 2
    assert f"old: holds the input {words[-4]}, which would be lost" in capsys.readouterr().err
    assert given.read_text() == "source_id\n1\n"


def test_predict_adds_to_the_folder_of_its_input(folder: Path) -> None:
    (folder / "in").mkdir()
    write_stars(simulate_stars(5, labels=("teff",), seed=1)[0], folder / "in" / "a.parquet")
    (folder / "in" / "a.parquet").rename(folder / "in" / "a.pq")
    words = ["predict", "in/a.pq", "--output", "in", "--overwrite"]
    assert main(words) == 0
    assert {"a.pq", "a.parquet"} <= names(folder / "in")


# Two runs at once --------------------------------------------------------------------------------

COMMANDS = {
    "demo --output new": "new",
    "library --output new.parquet": "new.parquet",
    "giants --output new.parquet": "new.parquet",
    "match mine.csv cat --output new.parquet": "new.parquet",
    "select xp.parquet --output new.parquet": "new.parquet",
    "train xp.parquet --labels teff --output new": "new",
    "convert XpContinuousMeanSpectrum_000000-000001.csv.gz --output new": "new",
    "predict xp.parquet --output new.csv": "new.csv",
    "predict xp.parquet --output new": "new",
    "validate m xp.parquet --output new": "new",
    "check-errors xp.parquet --json new.json": "new.json",
    "audit m xp.parquet --output new.csv": "new.csv",
    "simulate sed.csv --output new.parquet": "new.parquet",
    "explain m xp.parquet --output new": "new",
    "fetch --ids mine.csv --output new": "new",
}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_second_run_is_refused_by_name(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xplabels.convert.layout_of", lambda *_: SystemExit)
    monkeypatch.setattr("xplabels.convert.asdict", lambda *_: {})
    (folder / "XpContinuousMeanSpectrum_000000-000001.csv.gz").touch()
    before = names(folder)
    with claimed(Path(COMMANDS[words])):
        assert main(words.split()) == 2
        assert f"{COMMANDS[words]}: another run is at work here; wait" in capsys.readouterr().err
    assert names(folder) == before


def test_the_lock_of_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    text = "import sys, pathlib; from xplabels.io.atomic import claimed\n"
    text += "with claimed(pathlib.Path('out')): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text], cwd=tmp_path, stdin=-1, stdout=-1, env=os.environ
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another run"), claimed(tmp_path / "out"):
            pass
        other.kill()
        other.wait()
        assert names(tmp_path) == {".out.lock"}
    with claimed(tmp_path / "out"):
        pass
    assert not names(tmp_path)


# What dead processes leave -----------------------------------------------------------------------


def test_leftovers_of_the_dead_go_and_what_they_had_moved_away_comes_back(
    tmp_path: Path, dead: int
) -> None:
    for pid in (dead, os.getpid(), os.getppid()):  # a container has the same number in every run
        (tmp_path / f".{pid}.partial.model" / "deep").mkdir(parents=True)
    (tmp_path / f".{dead}.old.model").mkdir()
    (tmp_path / f".{dead}.old.model" / "model.json").write_text("whole")
    (tmp_path / ".me.partial.model").touch()
    (tmp_path / f".{dead}.partial..{dead}.partial.model").touch()  # written by way of another
    with claimed(tmp_path / "model"):
        pass
    left = {"model", f".{os.getppid()}.partial.model", ".me.partial.model"}
    assert names(tmp_path) == left
    assert (tmp_path / "model" / "model.json").read_text() == "whole"
    (tmp_path / f".{dead}.old.model").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == left


# Ends of all kinds -------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_command_in_one_line(
    how: signal.Signals, status: int, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def ended(*_: object, **__: object) -> None:
        bar = tqdm(total=1, desc="simulate", bar_format="{desc}", leave=True)
        os.kill(os.getpid(), how)
        bar.update()

    before, handler = names(folder), signal.getsignal(how)
    with monkeypatch.context() as patch:
        patch.setattr("xplabels.instrument.simulation.simulate_spectra", ended)
        assert main(["simulate", "sed.csv", "--output", "new.parquet"]) == status
    said = capsys.readouterr().err
    bar, line = said.rstrip("\n").split("\n")
    assert set(bar.split("\r")) <= {"", "simulate"}
    assert line == "xplabels: interrupted; repeat the command to resume"
    assert names(folder) == before
    assert signal.getsignal(how) is handler


@pytest.mark.parametrize("command", ["predict", "train --labels teff"])
def test_an_error_on_the_way_out_does_not_hide_a_signal(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As astropy raises, which reads on while it closes a file."""
    from xplabels.io import files

    class Interrupted(gzip.GzipFile):
        def readinto(self, buffer: Any) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().readinto(buffer)

        def close(self) -> None:
            super().close()
            raise gzip.BadGzipFile("CRC check failed")

    with gzip.open(folder / "xp.fits.gz", "wb") as file:
        file.write(b"SIMPLE  =" + bytes(10_000))
    monkeypatch.setattr(files, "_isal", lambda name: None)
    monkeypatch.setattr(gzip, "open", lambda file, mode: Interrupted(fileobj=file))
    assert main([*command.split(), "xp.fits.gz", "--output", "new"]) == 143
    assert capsys.readouterr().err == "xplabels: interrupted; repeat the command to resume\n"


def test_what_is_whole_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(".")[-1])
        sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append(f"{target.name}!")
        replace(source, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", rename)
    with whole_file(tmp_path / "one") as partial:
        partial.write_text("whole")
    assert events == ["one", "one!", tmp_path.name]
    events.clear()
    with whole_folder(tmp_path / "two") as partial:
        (partial / "in").mkdir()
        (partial / "in" / "file").write_text("whole")
    assert events[-2:] == ["two!", tmp_path.name]
    assert sorted(events[:-2]) == ["file", "in", "two"]


def test_a_run_over_a_folder_is_complete_once_its_outputs_are_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append(f"{target.name}!")
        replace(source, target)

    stars = simulate_stars(20, labels=("teff",), seed=1)[0]
    files = [folder / name for name in ("a.parquet", "b.parquet")]
    for path, some in zip(files, (stars[:10], stars[10:]), strict=True):
        write_stars(some, path)
    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr("os.replace", rename)
    assert predict_files(files, folder / "new", Model.load("apogee-dr17-library")).files == 2
    made, complete = events.index("b.parquet!"), len(events) - events[::-1].index("run.json!")
    assert {"a.parquet", "b.parquet", "new"} <= set(events[made:complete])


def test_a_full_disk_stops_training_with_a_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from xplabels.training.optimisation import Checkpoint

    network = torch.nn.Linear(2, 2)
    states = Checkpoint(folder / "model.partial", {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        InputError, match=r"network\.safetensors: .*No space left.*; free some space and"
    ):
        states.save("network", network, torch.optim.SGD(network.parameters(), 0.1), [])
    assert names(folder / "model.partial") == {"manifest.json"}


CALLS = "replace", "fsync", "unlink", "rmdir", "mkdir"
"""Of the module os: what lies between two of them is what a kill may leave."""


def counted_calls(patch: pytest.MonkeyPatch, at: Callable[[int], object]) -> None:
    """Call ``at`` with 1, 2, ... before each of :data:`CALLS`."""
    number = count(1)

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keys: Any) -> Any:
            at(next(number))
            return original(*args, **keys)

        return wrapped

    for name in CALLS:
        patch.setattr(os, name, counting(getattr(os, name)))


def killed_at(last: int, words: list[str], folder: Path) -> None:
    """What a process does that is killed before one of its calls."""
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    counted_calls(patch, lambda number: number == last and os.kill(os.getpid(), signal.SIGKILL))
    main(words)


KILLS_EACH = 4
PRELOADED = [
    "xplabels.pipeline",
    "xplabels.cuts.selecting",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "pyarrow.parquet",
    "tqdm",
    "filelock",
    "pytest",
]


@pytest.mark.parametrize(
    "words",
    [
        "select xp.parquet --table own=mine.csv --output new.parquet",
        "predict xp.parquet yp.parquet --output new.csv",
        "predict xp.parquet yp.parquet --output new",
    ],
)
def test_a_kill_at_any_call_is_made_good_by_the_same_command(words: str, folder: Path) -> None:
    """A slice of ``make soak``: kills at calls that make, rename and remove files."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    stars = simulate_stars(30, labels=("teff",), seed=1)[0]
    labelled(stars, folder)
    write_stars(replace(stars, source_id=stars.source_id + 1000), folder / "yp.parquet")
    before = names(folder)
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        counted_calls(patch, calls.append)
        assert main(words.split()) == 0
    expected = contents(folder, before)
    chosen = random.Random(words).sample(range(1, calls[-1] + 1), KILLS_EACH)
    for number in [*chosen, calls[-1]]:
        for name in names(folder) - before:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        process = context.Process(target=killed_at, args=(number, words.split(), folder))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        existed = all((folder / name).exists() for name in expected)  # all but clearing up was done
        status = main(words.split())
        assert status == 0 or existed, f"killed at call {number} of {calls[-1]}"
        assert contents(folder, before) == expected, f"killed at call {number} of {calls[-1]}"


def contents(folder: Path, before: set[str]) -> dict[str, bytes]:
    """Every new file; what JSON says of times does not count."""
    return {
        str(path.relative_to(folder)): b"" if path.suffix == ".json" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in before
    }


# Inputs that change ------------------------------------------------------------------------------


class Moving:
    """A file to which something is added as soon as its rows are looked at."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        import importlib

        module, _, name = function.rpartition(".")
        original = getattr(importlib.import_module(module), name)

        def changing(*args: Any, **keys: Any) -> Any:
            with path.open("ab") as file:
                file.write(b"\n")
            return original(*args, **keys)

        monkeypatch.setattr(function, changing)


def test_an_input_that_changes_while_it_is_read_is_noticed(
    folder: Path, stars: Stars, monkeypatch: pytest.MonkeyPatch
) -> None:
    def growing(blocks: Iterator[Stars]) -> Iterator[Stars]:
        for block in blocks:
            with (folder / "xp.parquet").open("ab") as file:
                file.write(b"more")
            yield block

    monkeypatch.setattr("xplabels.io.READERS", {".parquet": lambda *_: growing(iter([stars]))})
    with pytest.raises(InputError, match=r"xp\.parquet: changed while it was read"):
        read(folder / "xp.parquet")
    assert len(read_table(folder / "mine.csv")["teff"]) == 60
    Moving(folder / "mine.csv", monkeypatch, "xplabels.io.plain.csv_table")
    with pytest.raises(InputError, match=r"mine\.csv: changed while it was read"):
        read_table(folder / "mine.csv")


def test_a_catalogue_of_several_files_is_of_the_files_as_they_are(
    folder: Path, stars: Stars
) -> None:
    from stand_ins import FakeModel

    other = folder / "yp.parquet"
    write_stars(stars[:30], folder / "xp.parquet", overwrite=True)
    write_stars(stars[30:], other)

    class Late(FakeModel):
        def predict(self, some: Stars, *args: Any, **keys: Any) -> Any:
            if some.source_id[0] == stars.source_id[30]:  # the first file is done
                write_stars(stars[5:25], folder / "xp.parquet", overwrite=True)
            return super().predict(some, *args, **keys)

    model: Any = Late()
    files = [folder / "xp.parquet", other]
    with pytest.raises(InputError, match=r"xp\.parquet: changed while other files were labelled"):
        predict_files(files, folder / "labels.csv", model)
    assert not (folder / "labels.csv").exists()
    assert predict_files(files, folder / "labels.csv", FakeModel()).stars == 50
    assert len(read_table(folder / "labels.csv")["source_id"]) == 50
