"""What breaks while a folder is labelled: nothing is lost, nothing doubled, the rest goes on."""

from __future__ import annotations

import errno
import hashlib
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
    catalogues,
    edited,
    ids,
    make_sky,
    run,
    spectra_name,
    truncate,
)
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.pipeline import (
    PredictOptions,
    Summary,
    find_inputs,
    predict_folder,
    read_entry,
)
from xplabels.pipeline.manifest import entry_path

# What breaks -----------------------------------------------------------------------------------


def test_a_truncated_file_does_not_stop_the_others(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    small_stars: Stars,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_model.save(tmp_path / "model")
    broken, names = fragile_sky / spectra_name(1), list(labelled_sky)
    truncate(broken)
    words = ["predict", str(fragile_sky), "--model", str(tmp_path / "model")]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr()
    assert f"{broken}: is truncated" in told.err
    assert "1 of 3 files could not be labelled" in told.err
    assert list(catalogues(tmp_path / "out")) == [names[0], names[2]]
    account = json.loads((tmp_path / "out" / "_manifest" / "run.json").read_text())
    assert not account["complete"]
    assert list(account["failed"]) == [str(broken)]
    make_sky(fragile_sky, small_stars)  # downloaded again
    assert main(words) == 0
    assert len(ids(tmp_path / "out")) == len(set(ids(tmp_path / "out"))) == 3 * ROWS


def test_an_old_catalogue_of_a_file_that_has_gone_bad_does_not_stay(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output, names = tmp_path / "out", list(labelled_sky)
    run(fragile_sky, output, small_model)
    truncate(fragile_sky / spectra_name(1))
    for _ in range(2):
        assert list(run(fragile_sky, output, small_model).failed) == [fragile_sky / spectra_name(1)]
        assert list(catalogues(output)) == [names[0], names[2]]
        assert not entry_path(output / names[1]).exists()


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
    name = list(labelled_sky)[1]
    failed = run(fragile_sky, tmp_path / "stopped", small_model).failed
    assert f"row {row + 1}" in failed[fragile_sky / spectra_name(1)]
    summary = run(fragile_sky, tmp_path / "out", small_model, bad_rows="flag")
    good = pq.read_table(whole_sky.parent / "undisturbed" / name)
    star = good["source_id"][row].as_py()
    assert summary.damaged == [(spectra_name(1), row + 1, star)]
    assert summary.stars == 3 * ROWS
    assert summary.flags["BAD_ROW"] == 1
    entry = read_entry(tmp_path / "out" / name)
    assert entry is not None
    assert f"row {row + 1}, source_id {star}" in entry.notes[0]
    table = pq.read_table(tmp_path / "out" / name)
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
    sums = {
        path.name: hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(fragile_sky.iterdir())
    }
    wrong = spectra_name(2)
    sums[wrong] = "0" * 32
    (fragile_sky / "_MD5SUM.txt").write_text(
        "".join(f"{md5}  {name}\n" for name, md5 in sums.items())
    )
    summary = run(fragile_sky, tmp_path / "out", small_model)
    assert list(summary.failed) == [fragile_sky / wrong]
    assert "MD5 sum" in summary.failed[fragile_sky / wrong]
    assert summary.files == 2
    entry = read_entry(tmp_path / "out" / spectra_name(0).replace(".csv.gz", ".parquet"))
    assert entry is not None
    assert entry.md5_published


@pytest.mark.parametrize("listed", [False, True])
def test_a_missing_file_is_told(
    listed: bool, fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    if listed:
        lines = [
            f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(fragile_sky.iterdir())
        ]
        (fragile_sky / "_MD5SUM.txt").write_text("".join(lines))
    (fragile_sky / spectra_name(1)).unlink()
    summary = run(fragile_sky, tmp_path / "out", small_model)
    assert summary.files == 2
    assert len(summary.missing) == 1
    wanted = spectra_name(1) if listed else "pixels 000010-000019"
    assert wanted in summary.missing[0]
    account = json.loads((tmp_path / "out" / "_manifest" / "run.json").read_text())
    assert account["missing"] == list(summary.missing)
    assert summary.absent == ((fragile_sky / spectra_name(1),) if listed else ())


def test_a_file_that_the_list_names_and_that_is_missing_is_no_success(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_model.save(tmp_path / "model")
    names = [spectra_name(number) for number in range(15)]
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in fragile_sky.iterdir()}
    (fragile_sky / "_MD5SUM.txt").write_text(
        "".join(f"{sums.get(name, '0' * 32)}  {name}\n" for name in names)
    )
    words = ["predict", str(fragile_sky), "--model", str(tmp_path / "model"), "--output"]
    assert main([*words, str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert (
        f"12 files that the folder's own _MD5SUM.txt lists are not there, the first {names[3]}"
        in told.err
    )
    assert "--allow-missing" in told.err
    account = tmp_path / "out" / "_manifest" / "run.json"
    lines = [line for line in told.out.splitlines() if line.startswith("missing: ")]
    assert (len(lines), lines[-1]) == (11, f"missing: 2 more (all in {account})")
    assert catalogues(tmp_path / "out").keys() == labelled_sky.keys()  # done all the same
    assert main([*words, str(tmp_path / "out"), "--allow-missing"]) == 0
    # a single catalogue could not be added to: it is not begun
    assert main([*words, str(tmp_path / "one.parquet")]) == 2
    assert not list(tmp_path.glob("one.parquet*"))
    assert main([*words, str(tmp_path / "one.parquet"), "--allow-missing"]) == 0


def test_a_star_in_two_files_is_not_in_two_catalogues(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    copy = fragile_sky / spectra_name(7)
    copy.write_bytes((fragile_sky / spectra_name(1)).read_bytes())
    summary = run(fragile_sky, tmp_path / "out", small_model)
    assert list(summary.failed) == [copy]
    assert f"({ROWS} source_ids do)" in summary.failed[copy]
    assert catalogues(tmp_path / "out") == labelled_sky


def test_two_files_of_one_name_are_refused(
    whole_sky: Path, tmp_path: Path, small_model: Model
) -> None:
    other = tmp_path / spectra_name(0)
    other.write_bytes(b"")
    with pytest.raises(InputError) as error:
        predict_folder(
            find_inputs([whole_sky, other]),
            tmp_path / "out",
            small_model,
            PredictOptions(),
            progress=False,
        )
    told = str(error.value)
    both = f"{whole_sky / spectra_name(0)} and {other} would both be labelled as "
    assert told.startswith(both + spectra_name(0).replace(".csv.gz", ".parquet"))
    assert "rename one of them" in told
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
        with pytest.raises(InputError, match=r"No space left.*make room; the same command goes on"):
            run(fragile_sky, output, small_model)
    assert list(catalogues(output)) == list(labelled_sky)[:1]
    assert not list(output.glob(".*"))
    assert run(fragile_sky, output, small_model).resumed == 1
    assert catalogues(output) == labelled_sky


# Processes that die ----------------------------------------------------------------------------


def test_a_worker_that_dies_costs_nothing_and_a_file_that_kills_every_worker_is_named(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output, notes, names = tmp_path / "out", tmp_path / "notes", list(labelled_sky)
    notes.mkdir()
    once, ever = (
        pq.read_table(whole_sky.parent / "undisturbed" / name)["source_id"][5].as_py()
        for name in names[:2]
    )
    model: Any = Deadly(small_model, notes, {once: 1, ever: 99})
    summary = run(whole_sky, output, model, workers=2)
    assert len(list(notes.iterdir())) == 3
    assert list(summary.failed) == [whole_sky / spectra_name(1)]
    assert "its worker was killed" in summary.failed[whole_sky / spectra_name(1)]
    assert catalogues(output) == {name: labelled_sky[name] for name in (names[0], names[2])}
    assert not list(output.rglob(".*"))
    assert run(whole_sky, output, small_model).resumed == 2
    assert catalogues(output) == labelled_sky


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
    slow: Any = Slow(small_model, notes, 2.0)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_in_process, args=(whole_sky, output, slow))
    process.start()
    deadline = time.monotonic() + 300
    while len(list(output.glob("[!.]*.parquet"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join()
    assert process.exitcode == (-how if how == signal.SIGKILL else 1)
    done = len(catalogues(output))
    assert 1 <= done < 3
    workers = [int(path.name.removeprefix("pid-")) for path in notes.iterdir()]
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_alive, workers))
    summary = run(whole_sky, output, small_model)
    assert summary.resumed >= done
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
    watch = threading.Thread(target=kill, daemon=True)
    watch.start()
    work.start()
    work.join(timeout=120)
    assert killed
    assert done, "the run hangs"
    assert done[0].failed == {}
    assert catalogues(tmp_path / "out") == labelled_sky
