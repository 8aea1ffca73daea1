"""What breaks while a folder is labelled: nothing is lost, nothing doubled, the rest goes on."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sky import (
    ROWS,
    Deadly,
    Slow,
    Wrapped,
    catalogues,
    edited,
    list_sums,
    make_sky,
    run,
    spectra_name,
    truncate,
)
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.io.atomic import whole_folder
from xplabels.io.job import FileFingerprint, Job, Record
from xplabels.model import Model
from xplabels.pipeline import Summary, read_entry
from xplabels.pipeline.manifest import entry_path
from xplabels.pipeline.workers import Outcome, run_jobs

NAMES = [spectra_name(number).replace(".csv.gz", ".parquet") for number in range(3)]

# What breaks -----------------------------------------------------------------------------------


def test_a_truncated_file_does_not_stop_the_others_nor_keep_an_old_catalogue(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    small_stars: Stars,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_model.save(tmp_path / "model")
    broken, output = fragile_sky / spectra_name(1), tmp_path / "out"
    words = ["predict", str(fragile_sky), "--model", str(tmp_path / "model")]
    words += ["--output", str(output)]
    assert main(words) == 0
    truncate(broken)
    for _ in range(2):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert f"{broken}: is truncated" in err
        assert "1 of 3 files could not be labelled" in err
        assert list(catalogues(output)) == [NAMES[0], NAMES[2]]
        assert not entry_path(output / NAMES[1]).exists()
        account = json.loads((output / "_manifest" / "run.json").read_text())
        assert not account["complete"]
        assert list(account["failed"]) == [str(broken)]
    make_sky(fragile_sky, small_stars)  # downloaded again
    assert main(words) == 0
    ids = [pq.read_table(output / name)["source_id"].to_pylist() for name in NAMES]
    assert len({star for some in ids for star in some}) == sum(map(len, ids)) == 3 * ROWS


def test_a_damaged_row_is_named_and_the_rest_predicted(
    fragile_sky: Path,
    small_model: Model,
    tmp_path: Path,
    labelled_sky: dict[str, bytes],
    whole_sky: Path,
) -> None:
    row = 200

    def damage(lines: list[str]) -> list[str]:
        first = next(n for n, line in enumerate(lines) if line.startswith("source_id")) + 1
        lines[first + row] = lines[first + row].replace("[", "[oops", 1)
        return lines

    edited(fragile_sky / spectra_name(1), damage)
    failed = run(fragile_sky, tmp_path / "stopped", small_model).failed
    assert f"row {row + 1}" in failed[fragile_sky / spectra_name(1)]
    summary = run(fragile_sky, tmp_path / "out", small_model, bad_rows="flag")
    good = pq.read_table(whole_sky.parent / "undisturbed" / NAMES[1])
    star = good["source_id"][row].as_py()
    assert summary.damaged == [(spectra_name(1), row + 1, star)]
    assert (summary.stars, summary.flags["BAD_ROW"]) == (3 * ROWS, 1)
    entry = read_entry(tmp_path / "out" / NAMES[1])
    assert f"row {row + 1}, source_id {star}" in entry.notes[0]
    table = pq.read_table(tmp_path / "out" / NAMES[1])
    others = np.arange(ROWS) != row
    assert table["flags"][row].as_py() & Flag.BAD_ROW
    assert np.isnan(table["teff"][row].as_py())
    for column in table.column_names:
        np.testing.assert_allclose(
            table[column].to_numpy()[others], good[column].to_numpy()[others], rtol=2e-6
        )


def test_a_sum_that_is_not_the_published_one_is_an_error(
    fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    list_sums(fragile_sky)
    wrong = fragile_sky / spectra_name(2)
    wrong.write_bytes(wrong.read_bytes() + b"\0")
    summary = run(fragile_sky, tmp_path / "out", small_model)
    assert list(summary.failed) == [wrong]
    assert "MD5 sum" in summary.failed[wrong]
    entry = read_entry(tmp_path / "out" / NAMES[0])
    assert entry.md5_published


def test_two_files_of_one_name_are_refused(
    whole_sky: Path, tmp_path: Path, small_model: Model
) -> None:
    first, other = whole_sky / spectra_name(0), tmp_path / spectra_name(0)
    other.write_bytes(b"")
    with pytest.raises(InputError) as error:
        run([first, other], tmp_path / "out", small_model)
    both = f"{first} and {other} would both be labelled as {NAMES[0]}"
    assert str(error.value).startswith(both)
    assert "rename one of them" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, written = pq.ParquetWriter.write_table, 0

    def write(self: Any, *words: Any, **keys: Any) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, *words, **keys)

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", write)
        with pytest.raises(InputError, match=r"No space left.*free some space; repeat the command"):
            run(fragile_sky, output, small_model)
    assert list(catalogues(output)) == NAMES[:1]
    assert not list(output.glob(".*"))
    assert run(fragile_sky, output, small_model).resumed == 1
    assert catalogues(output) == labelled_sky


# Processes that die ----------------------------------------------------------------------------


def test_a_worker_that_dies_costs_nothing_and_a_file_that_kills_every_worker_is_named(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output, notes = tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    once, ever = (
        pq.read_table(whole_sky.parent / "undisturbed" / name)["source_id"][5].as_py()
        for name in NAMES[:2]
    )
    model = Wrapped(small_model, Deadly(notes, {once: 1, ever: 99}))
    summary = run(whole_sky, output, model, workers=2)
    assert len(list(notes.iterdir())) == 3
    assert list(summary.failed) == [whole_sky / spectra_name(1)]
    assert "its worker was killed" in summary.failed[whole_sky / spectra_name(1)]
    assert catalogues(output) == {name: labelled_sky[name] for name in (NAMES[0], NAMES[2])}
    assert not list(output.rglob(".*"))
    assert run(whole_sky, output, small_model).resumed == 2
    assert catalogues(output) == labelled_sky


def _die_once_in_a_folder(job: Job, count_stars: object) -> Record:
    with whole_folder(job.output, overwrite=True) as folder:
        if not job.inputs[0].exists():
            job.inputs[0].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        file = FileFingerprint(folder.name, 0, 0)
    return Record(file, (), file, job.settings)


def test_a_folder_that_a_dead_worker_left_does_not_stay(tmp_path: Path) -> None:
    outputs = [tmp_path / "a", tmp_path / "b"]
    jobs = [Job((tmp_path / f"{path.name}.in",), {}, path, path / "record") for path in outputs]
    outcomes: list[Outcome] = []
    run_jobs(_die_once_in_a_folder, jobs, 2, lambda job, outcome: outcomes.append(outcome))
    assert [type(outcome) for outcome in outcomes] == [Record, Record]
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == outputs


def _run_in_process(folder: Path, output: Path, model: Any) -> None:
    run(folder, output, model, workers=2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_process_and_goes_on(
    how: signal.Signals,
    whole_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    tmp_path: Path,
) -> None:
    notes, output = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    words = (whole_sky, output, Wrapped(small_model, Slow(notes, 2.0)))
    process = multiprocessing.get_context("spawn").Process(target=_run_in_process, args=words)
    process.start()
    deadline = time.monotonic() + 300
    while not list(output.glob("[!.]*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, how)
    process.join()
    assert process.exitcode == (-how if how == signal.SIGKILL else 1)
    done = len(catalogues(output))
    assert 1 <= done < 3
    workers = [int(path.name.removeprefix("pid-")) for path in notes.iterdir()]
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_alive, workers))
    assert run(whole_sky, output, small_model).resumed >= done
    assert catalogues(output) == labelled_sky
    assert not list(output.rglob(".*"))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_worker_that_dies_while_it_starts_does_not_hold_the_run_up(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    """Killed before it has read what it is given."""
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for pid in map(int, child.read_text().split()):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return

    done: list[Summary] = []
    work = threading.Thread(
        target=lambda: done.append(run(whole_sky, tmp_path / "out", small_model, workers=2)),
        daemon=True,
    )
    threading.Thread(target=kill, daemon=True).start()
    work.start()
    work.join(timeout=120)
    assert killed
    assert done, "the run hangs"
    assert done[0].failed == {}
    assert catalogues(tmp_path / "out") == labelled_sky
