"""What a run over a folder leaves alone, and what its account says when not all is well."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sky import (
    ROWS,
    Wrapped,
    catalogues,
    edited,
    make_sky,
    run,
    span,
    spectra_name,
    truncate,
)
from xplabels.cli import main
from xplabels.cli.predict import summary_lines
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.pipeline import (
    AuxiliaryTables,
    PredictOptions,
    Summary,
    find_inputs,
    manifest,
    predict_folder,
)
from xplabels.pipeline.manifest import entry_path


def account(output: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((output / "_manifest" / "run.json").read_text())
    return told


def entries(output: Path) -> dict[str, bytes]:
    folder = output / "_manifest"
    return {p.name: p.read_bytes() for p in folder.glob("*.json") if p.name != "run.json"}


def run_on(files: Sequence[Path], output: Path, model: Any, **keys: Any) -> Summary:
    """With each file named, whether or not it is there."""
    order = PredictOptions(AuxiliaryTables(**keys))
    return predict_folder(find_inputs(files), output, model, order, progress=False)


def list_sums(folder: Path) -> None:
    """What the archive publishes of its files."""
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("Xp*"))
    ]
    (folder / "_MD5SUM.txt").write_text("".join(lines))


@pytest.fixture
def labelled(whole_sky: Path, labelled_sky: dict[str, bytes], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a folder of files, to be broken, and of the folder they are labelled into."""
    shutil.copytree(whole_sky, tmp_path / "in")
    shutil.copytree(whole_sky.parent / "undisturbed", tmp_path / "out")
    return tmp_path / "in", tmp_path / "out"


# Outputs that stay -----------------------------------------------------------------------------


def _renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _of_another_time(path: Path) -> None:
    os.utime(path, (1, 1))  # so that its sum is wanted, which cannot be had


@pytest.mark.parametrize("harm", [_renamed, _of_another_time])
def test_an_output_stays_when_its_input_cannot_be_read(
    harm: Callable[[Path], None],
    labelled: tuple[Path, Path],
    labelled_sky: dict[str, bytes],
    small_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files, output = sorted(labelled[0].iterdir()), labelled[1]
    before = entries(output)
    harm(files[1])
    caplog.set_level("INFO", "xplabels")
    real = Path.open

    def refuse(self: Path, *words: Any, **keys: Any) -> Any:
        if self == files[1]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(self, *words, **keys)

    monkeypatch.setattr(Path, "open", refuse)
    for _ in range(2):
        summary = run_on(files, output, small_model)
        assert (summary.resumed, list(summary.failed)) == (2, [files[1]])
        assert "cannot be read" in summary.failed[files[1]]
        assert "stays as it was (of an input, or GaiaSource" in summary.failed[files[1]]
        assert catalogues(output) == labelled_sky
        assert entries(output) == before
    assert "1 of an input, or GaiaSource file, that cannot be read now" in caplog.text
    told = account(output)
    assert (told["complete"], told["files"], told["stars"]) == (False, 2, 2 * ROWS)
    assert list(told["to_be_made_again"].values()) == [1]


@pytest.mark.parametrize("folder", [True, False])
def test_an_output_stays_when_its_gaia_source_is_missing(
    folder: bool, small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    """From the folder that was named for them, and from beside a file that breaks, too."""
    sky, gaia, output = tmp_path / "in", tmp_path / "in", tmp_path / "out"
    make_sky(sky, small_stars, gaia=True)
    files = sorted(sky.glob("Xp*"))
    keys: dict[str, Any] = {"gaia_source": gaia} if folder else {}
    run_on(files, output, small_model, **keys)
    outputs, before = catalogues(output), entries(output)
    (sky / f"GaiaSource_{span(1)}.csv.gz").unlink()
    model = small_model
    if not folder:  # it would be labelled without

        def breaks(stars: Stars) -> None:
            raise InputError("breaks")

        model = Wrapped(small_model, tmp_path)  # type: ignore[assignment]
        object.__setattr__(model, "happens", breaks)
    summary = run_on(files, output, model, **keys)
    assert list(summary.failed) == [files[1]]
    why = "cannot be read now" if folder else "GaiaSource file came or went"
    assert why in summary.failed[files[1]]
    assert (catalogues(output), entries(output)) == (outputs, before)


def test_a_gaia_source_that_changed_is_told_as_that(
    small_stars: Stars,
    small_model: Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sky, output = tmp_path / "in", tmp_path / "out"
    caplog.set_level("INFO", "xplabels")
    make_sky(sky, small_stars, gaia=True)
    run(sky, output, small_model)
    edited(sky / f"GaiaSource_{span(1)}.csv.gz", lambda lines: lines[:-20])
    run(sky, output, small_model)
    told = "1 output to be made again: 1 whose GaiaSource file changed since"
    assert caplog.messages[-1].endswith(told)


@pytest.mark.parametrize("harm", [truncate, _renamed])
def test_the_output_of_another_model_stays_when_its_input_is_broken(
    harm: Callable[[Path], None],
    labelled: tuple[Path, Path],
    labelled_sky: dict[str, bytes],
    small_model: Model,
) -> None:
    files, output, name = sorted(labelled[0].iterdir()), labelled[1], list(labelled_sky)[1]
    before = entries(output)[entry_path(output / name).name]
    harm(files[1])
    new = replace(small_model, metadata=small_model.metadata | {"name": "new"})
    summary = run_on(files, output, new)
    assert "stays as it was (made with model " in summary.failed[files[1]]
    assert catalogues(output)[name] == labelled_sky[name]
    assert entries(output)[entry_path(output / name).name] == before


def test_an_output_of_a_sum_published_later_stays_and_is_told(
    labelled: tuple[Path, Path], labelled_sky: dict[str, bytes], small_model: Model
) -> None:
    sky, output = labelled
    path, sums = sky / spectra_name(1), sky / "_MD5SUM.txt"
    list_sums(sky)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(md5, "0" * 32))
    summary = run(sky, output, small_model)
    assert list(summary.failed) == [path]
    assert "stays as it was (of an input that is not the published one)" in summary.failed[path]
    assert catalogues(output) == labelled_sky


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"flags": ["BAD_ROW"]},
        {"rows_out": "333"},
        {"input": {"name": "a", "size": "1", "time": 0}},
        {"output": {"name": "a", "size": 1, "time": 0, "md5": 7}},
        {"processor_seconds": "long"},
    ],
)
def test_an_odd_entry_is_none(
    change: dict[str, Any], labelled: tuple[Path, Path], labelled_sky: dict[str, bytes]
) -> None:
    output = labelled[1] / next(iter(labelled_sky))
    assert manifest.read_entry(output) is not None
    told = json.loads(entry_path(output).read_text()) | change
    entry_path(output).write_text(json.dumps(told))
    assert manifest.read_entry(output) is None


def test_an_output_stays_when_its_entry_cannot_be_read(
    labelled: tuple[Path, Path], labelled_sky: dict[str, bytes], small_model: Model
) -> None:
    sky, output = labelled
    entry = entry_path(output / list(labelled_sky)[1])
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"settings": "small"}))
    truncate(sky / spectra_name(1))
    summary = run(sky, output, small_model)
    assert "whose entry in _manifest cannot be read" in next(iter(summary.failed.values()))
    assert catalogues(output) == labelled_sky


# The account -----------------------------------------------------------------------------------


def test_an_interrupted_run_says_that_it_is_not_complete(
    labelled: tuple[Path, Path], small_model: Model, tmp_path: Path
) -> None:
    sky, output = labelled
    assert account(output)["complete"]
    edited(sky / spectra_name(1), lambda lines: lines[:-1])

    def interrupt(stars: Stars) -> None:
        raise KeyboardInterrupt

    model = Wrapped(small_model, tmp_path)
    object.__setattr__(model, "happens", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(sky, output, model, command="second")
    told = account(output)
    assert (told["complete"], told["command"]) == (False, "second")
    assert (told["files"], told["stars"]) == (2, 2 * ROWS)
    assert told["to_be_made_again"] == {"of an input that changed since": 1}
    assert told["made_again"] == {}
    run(sky, output, small_model)
    told = account(output)
    assert (told["complete"], told["to_be_made_again"]) == (True, {})
    assert told["made_again"] == {"of an input that changed since": 1}


def test_a_run_that_lacks_listed_files_is_complete_only_if_they_may_be_missing(
    fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    list_sums(fragile_sky)
    lacking = fragile_sky / spectra_name(1)
    lacking.unlink()
    words = ["predict", str(fragile_sky), "--model", str(tmp_path / "model")]
    words += ["--output", str(tmp_path / "out")]
    for more, complete in (([], False), (["--allow-missing"], True), ([], False)):
        assert main([*words, *more]) == (0 if complete else 2)
        told = account(tmp_path / "out")
        assert (told["complete"], told["absent"]) == (complete, [str(lacking)])


def test_a_run_whose_table_meets_no_star_is_not_complete(
    fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("source_id,j_m,j_msigcom\n77,12.0,0.02\n")
    companions = AuxiliaryTables((table,))
    with pytest.raises(InputError, match="shares no source_id"):
        run(fragile_sky, tmp_path / "out", small_model, tables=companions)
    assert not account(tmp_path / "out")["complete"]


def test_a_single_catalogue_names_every_missing_file() -> None:
    missing = tuple(f"file {number}" for number in range(15))
    lines = summary_lines(Summary(missing=missing))
    assert lines[1:] == [f"missing: {one}" for one in missing]
    lines = summary_lines(Summary(missing=missing, account=Path("out/run.json")))
    assert lines[10:] == ["missing: file 9", "missing: 5 more (all in out/run.json)"]


# What is missing -------------------------------------------------------------------------------


def test_an_unpacked_file_is_the_one_that_is_listed(fragile_sky: Path) -> None:
    list_sums(fragile_sky)
    packed = fragile_sky / spectra_name(1)
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    inputs = find_inputs([fragile_sky])
    assert (len(inputs.files), inputs.absent, inputs.missing) == (3, (), ())
    packed.with_suffix("").unlink()
    assert find_inputs([fragile_sky]).absent == (packed,)


def test_what_is_labelled_is_not_missing_when_its_spectra_are_removed(
    small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    """As where there is no room for all spectra at a time."""
    sky, output = tmp_path / "in", tmp_path / "out"
    make_sky(sky, small_stars, gaia=True)
    list_sums(sky)
    aside = tmp_path / "not downloaded yet"
    shutil.move(sky / spectra_name(2), aside)
    assert [path.name for path in run(sky, output, small_model).absent] == [spectra_name(2)]
    (sky / spectra_name(0)).unlink()
    (sky / f"GaiaSource_{span(0)}.csv.gz").unlink()
    shutil.move(aside, sky / spectra_name(2))
    summary = run(sky, output, small_model)
    assert (summary.absent, summary.missing) == ((), ())
    assert (summary.files, summary.resumed, summary.stars) == (3, 2, 3 * ROWS)
    told = account(output)
    assert (told["complete"], told["files"], told["stars"]) == (True, 3, 3 * ROWS)


def test_all_spectra_may_go_once_they_are_labelled(
    labelled: tuple[Path, Path], small_model: Model, tmp_path: Path
) -> None:
    sky, output = labelled
    list_sums(sky)
    for path in sky.glob("Xp*"):
        path.unlink()
    summary = run(sky, output, small_model)
    assert (summary.files, summary.absent) == (3, ())
    assert account(output)["complete"]
    small_model.save(tmp_path / "model")
    words = ["predict", str(sky), "--model", str(tmp_path / "model"), "--allow-missing", "--output"]
    for name in ("new", "one.parquet"):  # where nothing is labelled there is nothing to do
        assert main([*words, str(tmp_path / name)]) == 2
    assert not (tmp_path / "one.parquet").exists()


def test_an_output_without_its_spectra_does_not_go_for_a_file_with_the_same_stars(
    labelled: tuple[Path, Path], labelled_sky: dict[str, bytes], small_model: Model
) -> None:
    sky, output = labelled
    list_sums(sky)
    copy = (sky / spectra_name(1)).rename(sky / spectra_name(7))
    summary = run(sky, output, small_model)
    assert (list(summary.failed), summary.absent) == ([copy], ())
    assert catalogues(output) == labelled_sky


def _of_other_settings(sky: Path, output: Path) -> dict[str, Any]:
    return {"bad_rows": "flag"}


def _altered(sky: Path, output: Path) -> dict[str, Any]:
    truncate(output / spectra_name(0).replace(".csv.gz", ".parquet"))
    return {}


def _published_anew(sky: Path, output: Path) -> dict[str, Any]:
    text = (sky / "_MD5SUM.txt").read_text()
    (sky / "_MD5SUM.txt").write_text("0" * 32 + text[32:])
    return {}


def _to_be_joined(sky: Path, output: Path) -> dict[str, Any]:
    gaia = f"GaiaSource_{span(0)}.csv.gz"
    (sky / gaia).write_bytes(gzip.compress(b"source_id,ra\n1,2\n"))
    return {}


def _source_asked_for(sky: Path, output: Path) -> dict[str, Any]:
    return {"tables": AuxiliaryTables(gaia_source=sky)}


@pytest.mark.parametrize(
    "change", [_of_other_settings, _altered, _published_anew, _to_be_joined, _source_asked_for]
)
def test_labels_that_are_not_those_wanted_do_not_make_up_for_a_missing_file(
    change: Callable[[Path, Path], dict[str, Any]],
    labelled: tuple[Path, Path],
    labelled_sky: dict[str, bytes],
    small_model: Model,
) -> None:
    sky, output = labelled
    list_sums(sky)
    (sky / spectra_name(0)).unlink()
    keys = change(sky, output)
    there = catalogues(output)[next(iter(labelled_sky))]
    summary = run(sky, output, small_model, **keys)
    assert summary.absent == (sky / spectra_name(0),)
    assert catalogues(output)[next(iter(labelled_sky))] == there
