"""Whether an output is the one that is wanted, and whose a folder is that is in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.io.job import FileFingerprint, Job, Record, difference, md5_of, open_partial
from xplabels.pipeline.folder import PARTIAL_FILES, find_duplicates

SETTINGS = {"model": {"name": "m", "sha256": "0"}, "version": "1"}


# Jobs ------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that is done: of an input and a file that belongs to it."""
    paths = [tmp_path / name for name in ("in", "beside", "out")]
    for path in paths:
        path.write_text(path.name)
    job = Job(tuple(paths[:2]), SETTINGS, paths[2], tmp_path / "record.json")
    files = [FileFingerprint.of(path, md5_of(path)) for path in paths]
    Record(files[0], (files[1],), files[2], SETTINGS).write(job.record)
    return job


def done(job: Job) -> bool:
    return isinstance(job.check_existing(Record), Record)


def test_a_job_is_done_until_an_output_input_or_setting_differs(job: Job) -> None:
    assert done(job)
    assert not done(replace(job, settings=SETTINGS | {"version": "2"}))
    assert not done(replace(job, inputs=job.inputs[:1]))
    assert not done(replace(job, published="0" * 32))
    assert done(replace(job, published=md5_of(job.inputs[0])))
    for path in (job.output, *job.inputs):
        before = path.read_text()
        path.write_text(before[::-1])
        assert not done(job)
        path.write_text(before)
        assert done(job)  # at another time, but to the byte
    job.record.unlink()
    assert not done(job)


def test_settings_of_any_kind_are_compared() -> None:
    wanted = {"model": {"name": "small", "sha256": ""}, "version": "1"}
    assert difference({"model": {"sha256": 7}, "version": "1"}, wanted) == (
        "model without a name (sha256 7), now small"
    )
    assert difference(wanted | {"more": ["x"]}, wanted) == "more x, now none"
    assert difference({"version": "1"}, wanted) == "model none, now small"
    made = wanted | {"version": "0", "photometry": ["x 1 2"]}
    assert difference(made, wanted | {"photometry": []}) == "version 0, now 1; other photometry"
    assert difference(wanted, wanted) == ""


# Folders of unfinished runs --------------------------------------------------------------------


def opened(folder: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
    open_partial(folder, "manifest.json", settings, PARTIAL_FILES, overwrite)


MANIFEST = json.dumps(SETTINGS).encode()
NOT_OURS = "has not the manifest of an interrupted run; move it away"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({".77.partial.manifest.json": b"{"}, None),  # killed at once
        ({"mine.parquet": b"mine"}, NOT_OURS),
        ({"mine.parquet": b"mine", "manifest.json": b'{"name": "a data set of mine"}'}, NOT_OURS),
        ({"manifest.json": b"\xff{"}, NOT_OURS),
        ({"manifest.json": MANIFEST, "thesis.tex": b"mine"}, "which was not made here"),
    ],
)
def test_a_folder_of_the_user_is_never_taken_for_a_partial_one(
    files: dict[str, bytes], message: str | None, overwrite: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "c.fits.partial"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if message is None:
        opened(folder, SETTINGS, overwrite)
        assert [path.name for path in folder.iterdir()] == ["manifest.json"]
        return
    with pytest.raises(InputError, match=rf"c\.fits\.partial: .*{message}"):
        opened(folder, SETTINGS, overwrite)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    link = tmp_path / "link.partial"
    link.symlink_to(folder)
    with pytest.raises(InputError, match="is not a folder"):
        opened(link, SETTINGS, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


# Stars in two files ----------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sets(st.integers(0, 60), min_size=1, max_size=8), min_size=1, max_size=8))
def test_duplicates_are_found_as_a_plain_set_finds_them(
    tmp_path: Path, files: list[set[int]]
) -> None:
    labelled: list[Any] = []
    for number, ids in enumerate(files):
        output = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"source_id": np.array(list(ids))}), output)
        entry = type("Entry", (), {"first_id": min(ids), "last_id": max(ids)})
        labelled.append((Job((output,), {}, output, output), entry))
    seen: set[int] = set()
    expected = []
    for number, ids in enumerate(files):
        if ids & seen:
            expected.append(number)
        else:
            seen |= ids
    found = [int(job.output.stem) for job, _ in find_duplicates(labelled)]
    assert sorted(found) == expected
