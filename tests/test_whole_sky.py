"""A folder of bulk files to a folder of catalogues: every star once, done files kept."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sky import (
    ROWS,
    Wrapped,
    catalogues,
    edited,
    list_sums,
    make_sky,
    placed,
    run,
    span,
    spectra_name,
    swap,
    truncate,
)
from xplabels import io as archive
from xplabels.cli import main
from xplabels.cli.predict import summary_lines
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Photometry, Stars
from xplabels.io import write_stars
from xplabels.io.catalogue import write_catalogue
from xplabels.io.plain import read_table
from xplabels.model import Model
from xplabels.pipeline import (
    AuxiliaryTables,
    ManifestEntry,
    PredictOptions,
    find_inputs,
    predict_catalogue,
    predict_file,
    predict_folder,
    read_entry,
)
from xplabels.pipeline.file import regrouped
from xplabels.pipeline.manifest import entry_path

NAMES = [spectra_name(number).replace(".csv.gz", ".parquet") for number in range(3)]
Folders = tuple[Path, Path]


def account(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "_manifest" / "run.json").read_text())
    return found


def entries(output: Path) -> dict[str, bytes]:
    folder = output / "_manifest"
    return {p.name: p.read_bytes() for p in folder.glob("*.json") if p.name != "run.json"}


def another(model: Model) -> Model:
    """The same under another digest."""
    return replace(model, metadata=model.metadata | {"sha256": "f" * 64})


def breaks(stars: Stars) -> None:
    raise InputError("breaks")


@pytest.fixture
def labelled(whole_sky: Path, labelled_sky: dict[str, bytes], tmp_path: Path) -> Folders:
    """Copies of a folder of files, to be broken, and of the folder of their labels."""
    shutil.copytree(whole_sky, tmp_path / "in")
    shutil.copytree(whole_sky.parent / "undisturbed", tmp_path / "out")
    return tmp_path / "in", tmp_path / "out"


# What comes out --------------------------------------------------------------------------------


def test_each_file_has_its_catalogue_and_its_entry(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, small_stars: Stars
) -> None:
    output = whole_sky.parent / "undisturbed"
    assert list(labelled_sky) == NAMES
    without = replace(small_stars, photometry=Photometry.missing(len(small_stars)))
    for number, (name, content) in enumerate(labelled_sky.items()):
        entry = read_entry(output / name)
        source = whole_sky / spectra_name(number)
        assert entry.input.md5 == hashlib.md5(source.read_bytes()).hexdigest()
        assert entry.output.md5 == hashlib.md5(content).hexdigest()
        assert entry.rows_in == entry.rows_out == ROWS
        assert entry.settings["model"]["sha256"] == small_model.metadata.get("sha256", "")
        table = pq.read_table(output / name)
        flags = table["flags"].to_numpy()
        counts = {str(flag.name): int(((flags & flag.value) != 0).sum()) for flag in Flag}
        assert entry.flags == {flag: count for flag, count in counts.items() if count}
        stars = placed(without[slice(number * ROWS, (number + 1) * ROWS)], number)
        expected = small_model.predict(stars)
        assert (table["source_id"].to_numpy() == expected.source_id).all()
        for values, end in ((expected.values, ""), (expected.errors, "_error")):
            columns = np.column_stack([table[f"{name}{end}"] for name in expected.names])
            np.testing.assert_allclose(columns, values, rtol=1e-5)
    assert account(output)["complete"]
    assert account(output)["stars"] == 3 * ROWS


@pytest.mark.parametrize(("block", "star_table"), [(17, False), (4096, False), (1000, True)])
def test_labels_do_not_depend_on_block_or_format(
    block: int, star_table: bool, labelled: Folders, small_model: Model, tmp_path: Path
) -> None:
    path = labelled[0] / spectra_name(0)
    if star_table:
        write_stars(archive.read(path), tmp_path / "stars.parquet")
        path = tmp_path / "stars.parquet"
    predict_file(small_model, path, tmp_path / "one.parquet", block=block)
    one, other = pq.read_table(tmp_path / "one.parquet"), pq.read_table(labelled[1] / NAMES[0])
    for name in other.column_names:
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=2e-6)


def test_stars_of_many_small_files_are_labelled_together_and_each_as_by_itself(
    labelled: Folders, small_model: Model, tmp_path: Path
) -> None:
    """One call of the model; a damaged file among them is left out, and it alone."""
    stars, seen = archive.read(labelled[0] / spectra_name(0)), list[int]()
    spectra, files = tmp_path / "spectra", list[Path]()
    spectra.mkdir()
    for number in range(12):
        files.append(spectra / f"{number:02d}.parquet")
        write_stars(stars[number : number + 1], files[-1])
    files[5].write_bytes(files[5].read_bytes()[:500])
    model = Wrapped(small_model, lambda block: seen.append(len(block)))
    summary = run(spectra, tmp_path / "labels", model)
    assert (seen, list(summary.failed), summary.stars) == ([11], [files[5]], 11)
    for file in (files[0], files[11]):
        alone = predict_file(small_model, file, tmp_path / file.name)
        output = tmp_path / "labels" / file.name
        one, other = pq.read_table(tmp_path / file.name), pq.read_table(output)
        assert one.schema.equals(other.schema, check_metadata=True)
        for name in other.column_names:
            np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-5)
        entry = read_entry(output)
        assert entry is not None
        assert (entry.flags, entry.good, entry.first_id) == (
            alone.flags, alone.good, alone.first_id,
        )  # fmt: skip
    assert run(spectra, tmp_path / "labels", model).resumed == 11


def test_row_groups_do_not_depend_on_the_blocks() -> None:
    table = pa.table({"x": np.random.default_rng(0).normal(size=173)})
    for block in (1, 7, 50, 173):
        groups = list(regrouped((table[n : n + block] for n in range(0, 173, block)), 50))
        assert [len(group) for group in groups] == [50, 50, 50, 23]
        assert all(group["x"].num_chunks == 1 for group in groups)
        assert pa.concat_tables(groups).equals(table)


def test_order_and_place_of_the_files_do_not_matter_nor_whether_the_catalogue_is_one(
    labelled: Folders, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    moved = labelled[0].rename(tmp_path / "elsewhere")
    run(sorted(moved.iterdir(), reverse=True), tmp_path / "new", small_model)
    assert catalogues(tmp_path / "new") == labelled_sky
    words = ["predict", str(moved), "--model", str(tmp_path / "model"), "--output"]
    assert main([*words, str(tmp_path / "one.parquet")]) == 0
    one = pq.read_table(tmp_path / "one.parquet").replace_schema_metadata()
    parts = [pq.read_table(labelled[1] / name).replace_schema_metadata() for name in NAMES]
    assert one.to_pandas().equals(pa.concat_tables(parts).to_pandas())


def test_flipped_bits_of_a_catalogue_are_noticed(
    labelled: Folders, small_model: Model, tmp_path: Path
) -> None:
    one, table = tmp_path / "one.parquet", tmp_path / "table.parquet"
    predict_catalogue(find_inputs([labelled[0]]), one, small_model, PredictOptions())
    write_catalogue(small_model.predict(archive.read(labelled[0] / spectra_name(0))), table)
    for path in (labelled[1] / NAMES[0], one, table):
        column = pq.read_metadata(path).row_group(0).column(1)
        data = bytearray(path.read_bytes())
        data[column.data_page_offset + column.total_compressed_size - 5] ^= 16
        path.write_bytes(data)
        with pytest.raises(InputError, match="is not a whole Parquet file"):
            read_table(path)


# Runs that go on -------------------------------------------------------------------------------


def _nothing(sky: Path, output: Path) -> None:
    for path in sky.iterdir():
        os.utime(path)  # copied elsewhere and back: their sums are still the same


def _entry_lost(sky: Path, output: Path) -> None:
    (output / NAMES[1]).unlink()  # as after a kill between the two
    entry_path(output / NAMES[1]).write_text("{")


def _output(harm: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    return lambda sky, output: harm(output / NAMES[1])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_nothing, None),
        (_output(truncate), "truncated or altered since"),
        (_output(swap), "truncated or altered since"),
        (_output(Path.unlink), ""),
        (_entry_lost, ""),
    ],
)
def test_only_what_does_not_fit_its_entry_is_made_again(
    harm: Callable[[Path, Path], None],
    reason: str | None,
    labelled: Folders,
    labelled_sky: dict[str, bytes],
    small_model: Model,
) -> None:
    sky, output = labelled
    before = {path: path.stat().st_mtime_ns for path in output.glob("[!.]*.parquet")}
    harm(sky, output)
    summary = run(sky, output, small_model)
    assert summary.resumed == (3 if reason is None else 2)
    assert summary.remade == ({reason: 1} if reason else {})
    assert not reason or f"1 {reason}" in "\n".join(summary_lines(summary))
    assert catalogues(output) == labelled_sky
    after = {path: path.stat().st_mtime_ns for path in before}
    assert sum(before[path] != after[path] for path in before) == 3 - summary.resumed


def test_another_model_makes_every_output_again_each_of_which_stays_until_then(
    labelled: Folders,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sky, output = labelled
    seen: list[dict[str, bytes]] = []

    def look(stars: Stars) -> None:  # while the second file is being labelled
        seen.append(catalogues(output))
        if len(seen) == 2:
            raise InputError("breaks")

    caplog.set_level("INFO", "xplabels")
    truncate(output / NAMES[0])
    summary = run(sky, output, Wrapped(another(small_model), look))
    assert [list(found) for found in seen] == [NAMES] * 3
    assert [found[NAMES[1]] for found in seen] == [labelled_sky[NAMES[1]]] * 3
    assert "stays as it was" in summary.failed[sky / spectra_name(1)]
    before = str(small_model.metadata.get("sha256", ""))[:12]
    (message,) = caplog.messages
    assert message.startswith(f"{output}: 3 outputs to be made again: ")
    assert re.search(rf"2 made with model \S+.*{before}.*, now \S+ \(sha256 f{{12}}\)", message)
    assert "1 truncated or altered since" in message
    assert list(summary.remade.values()) == [1, 1]
    assert "2 outputs made again: " in "\n".join(summary_lines(summary))
    assert account(output)["made_again"] == summary.remade
    again = run(sky, output, another(small_model))
    assert (again.resumed, sum(again.remade.values())) == (2, 1)


def test_a_file_of_the_user_is_not_replaced(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    small_stars: Stars,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    mine = output / NAMES[2]
    mine.write_text("mine")
    with pytest.raises(InputError, match="was not made here"):
        run(fragile_sky, output, small_model)
    assert catalogues(output) == {mine.name: b"mine"}
    truncate(fragile_sky / spectra_name(2))
    assert len(run(fragile_sky, output, small_model, overwrite=True).failed) == 1
    assert mine.read_text() == "mine"
    make_sky(fragile_sky, small_stars)
    run(fragile_sky, output, small_model, overwrite=True)
    assert catalogues(output) == labelled_sky


def test_two_runs_keep_apart(whole_sky: Path, small_model: Model, tmp_path: Path) -> None:
    inputs, options, errors = find_inputs([whole_sky]), PredictOptions(), []

    def second(stars: Stars) -> None:  # while the first is at work
        for predict, output in ((predict_folder, "out"), (predict_catalogue, "one.csv")):
            if (tmp_path / output).exists() or (tmp_path / f"{output}.partial").exists():
                with pytest.raises(InputError, match="another run is at work") as error:
                    predict(inputs, tmp_path / output, small_model, options)
                errors.append(error)

    model: Any = Wrapped(small_model, second)
    assert predict_catalogue(inputs, tmp_path / "one.csv", model, options).stars == 3 * ROWS
    (tmp_path / "one.csv").unlink()
    assert predict_folder(inputs, tmp_path / "out", model, options).stars == 3 * ROWS
    assert len(errors) == 6


# Outputs that stay -----------------------------------------------------------------------------

HARMS = {
    "input renamed": "of an input, or GaiaSource file, that cannot be read now",
    "input unreadable": "of an input, or GaiaSource file, that cannot be read now",
    "sum published": "of an input that is not the published one",
    "entry damaged": "whose entry in _manifest cannot be read",
    "other model, input truncated": "made with model ",
    "other model, input renamed": "made with model ",
}


@pytest.mark.parametrize("harm", HARMS)
def test_an_output_stays_when_its_input_cannot_be_labelled(
    harm: str,
    labelled: Folders,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sky, output = labelled
    files = sorted(sky.iterdir())
    path, entry = files[1], entry_path(output / NAMES[1])
    model = another(small_model) if "model" in harm else small_model
    if "renamed" in harm:
        path.rename(path.with_name("elsewhere"))
    elif harm == "input unreadable":
        os.utime(path, (1, 1))  # so that its sum is wanted, which cannot be had
        opened = Path.open

        def refuse(self: Path, *words: Any, **keys: Any) -> Any:
            if self == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(self, *words, **keys)

        monkeypatch.setattr(Path, "open", refuse)
    elif harm == "sum published":
        (sky / "_MD5SUM.txt").write_text(f"{'0' * 32}  {path.name}\n")
    else:
        truncate(path)
    if harm == "entry damaged":
        entry.write_text(json.dumps(json.loads(entry.read_text()) | {"settings": "small"}))
    before = entry.read_bytes()
    for _ in range(2):
        summary = run(files, output, model)
        assert list(summary.failed) == [path]
        assert f"stays as it was ({HARMS[harm]}" in summary.failed[path]
        assert catalogues(output)[NAMES[1]] == labelled_sky[NAMES[1]]
        assert entry.read_bytes() == before
        found = account(output)
        assert (found["complete"], found["files"], found["stars"]) == (False, 2, 2 * ROWS)
        assert list(found["to_be_made_again"].values()) == [1]


@pytest.mark.parametrize("folder", [True, False])
def test_an_output_stays_when_its_gaia_source_is_missing(
    folder: bool, small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    """From the folder that was named for them, and from beside a file that breaks, too."""
    sky, output = tmp_path / "in", tmp_path / "out"
    make_sky(sky, small_stars, gaia=True)
    tables = AuxiliaryTables(gaia_source=sky if folder else None)
    run(sky, output, small_model, tables=tables)
    outputs, before = catalogues(output), entries(output)
    (sky / f"GaiaSource_{span(1)}.csv.gz").unlink()
    # beside the spectra it would be labelled without
    model: Any = small_model if folder else Wrapped(small_model, breaks)
    (why,) = run(sky, output, model, tables=tables).failed.values()
    assert ("cannot be read now" if folder else "GaiaSource file came or went") in why
    assert (catalogues(output), entries(output)) == (outputs, before)


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
def test_a_damaged_entry_is_none(change: dict[str, Any], labelled: Folders) -> None:
    output = labelled[1] / NAMES[0]
    values = json.loads(entry_path(output).read_text())
    assert read_entry(output) is not None
    entry_path(output).write_text(json.dumps(values | change))
    assert read_entry(output) is None


# The account -----------------------------------------------------------------------------------


def test_an_interrupted_run_says_that_it_is_not_complete(
    labelled: Folders, small_model: Model
) -> None:
    sky, output = labelled
    edited(sky / spectra_name(1), lambda lines: lines[:-1])

    def interrupt(stars: Stars) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(sky, output, Wrapped(small_model, interrupt), command="second")
    found = account(output)
    assert (found["complete"], found["command"]) == (False, "second")
    assert (found["files"], found["stars"]) == (2, 2 * ROWS)
    assert found["to_be_made_again"] == {"of an input that changed since": 1}
    assert found["made_again"] == {}
    summary = run(sky, output, small_model)
    assert (summary.resumed, summary.stars) == (2, 3 * ROWS - 1)
    found = account(output)
    assert (found["complete"], found["to_be_made_again"]) == (True, {})
    assert found["made_again"] == {"of an input that changed since": 1}


# What is missing -------------------------------------------------------------------------------


def test_a_gap_between_files_is_reported(
    fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    (fragile_sky / spectra_name(1)).unlink()
    summary = run(fragile_sky, tmp_path / "out", small_model)
    (missing,) = summary.missing
    assert "pixels 000010-000019" in missing
    assert (summary.files, summary.absent) == (2, ())
    assert account(tmp_path / "out")["missing"] == [missing]
    assert account(tmp_path / "out")["complete"]


def test_a_run_that_lacks_listed_files_is_complete_only_if_they_may_be_missing(
    fragile_sky: Path, small_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model.save(tmp_path / "model")
    list_sums(fragile_sky)
    names, output = [spectra_name(number) for number in range(3, 15)], tmp_path / "out"
    with (fragile_sky / "_MD5SUM.txt").open("a") as sums:
        sums.writelines(f"{'0' * 32}  {name}\n" for name in names)
    words = ["predict", str(fragile_sky), "--model", str(tmp_path / "model"), "--output"]
    what = f"12 files that the folder's own _MD5SUM.txt lists are not there, the first {names[0]}"
    for more in ([], ["--allow-missing"], []):
        assert main([*words, str(output), *more]) == (0 if more else 2)
        out, err = capsys.readouterr()
        assert (what in err, "--allow-missing" in err) == (not more, not more)
        assert catalogues(output).keys() == set(NAMES)  # done all the same
        assert account(output)["complete"] is bool(more)
        assert account(output)["absent"] == [str(fragile_sky / name) for name in names]
        lines = [line for line in out.splitlines() if line.startswith("missing: ")]
        last = f"missing: 2 more (all in {output / '_manifest' / 'run.json'})"
        assert (len(lines), lines[-1]) == (11, last)
    # a single catalogue could not be added to: it is not begun
    assert main([*words, str(tmp_path / "one.parquet")]) == 2
    assert not list(tmp_path.glob("one.parquet*"))
    capsys.readouterr()
    assert main([*words, str(tmp_path / "one.parquet"), "--allow-missing"]) == 0
    assert capsys.readouterr().out.count("\nmissing: ") == 12  # in no file


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
    """A disk too small for all spectra: they are deleted once they have labels."""
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
    found = account(output)
    assert (found["complete"], found["files"], found["stars"]) == (True, 3, 3 * ROWS)


def test_all_spectra_may_go_once_they_are_labelled(
    labelled: Folders, small_model: Model, tmp_path: Path
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


@pytest.mark.parametrize("gone", [False, True])
def test_a_star_in_two_files_is_in_one_catalogue(
    gone: bool, labelled: Folders, labelled_sky: dict[str, bytes], small_model: Model
) -> None:
    """In that of the file before, or of the one whose spectra are there no more."""
    sky, output = labelled
    list_sums(sky)
    copy, path = sky / spectra_name(7), sky / spectra_name(1)
    (path.rename if gone else lambda to: shutil.copy(path, to))(copy)
    summary = run(sky, output, small_model)
    assert (list(summary.failed), summary.absent) == ([copy], ())
    assert f"({ROWS} source_ids do)" in summary.failed[copy]
    assert catalogues(output) == labelled_sky


@pytest.mark.parametrize("change", ["settings", "output", "sum", "source came", "source wanted"])
def test_labels_that_are_not_those_wanted_do_not_make_up_for_a_missing_file(
    change: str, labelled: Folders, small_model: Model
) -> None:
    sky, output = labelled
    list_sums(sky)
    (sky / spectra_name(0)).unlink()
    keys: dict[str, Any] = {}
    if change == "settings":
        keys["bad_rows"] = "flag"
    elif change == "output":
        truncate(output / NAMES[0])
    elif change == "sum":
        text = (sky / "_MD5SUM.txt").read_text()
        (sky / "_MD5SUM.txt").write_text("0" * 32 + text[32:])
    elif change == "source came":
        gaia = sky / f"GaiaSource_{span(0)}.csv.gz"
        gaia.write_bytes(gzip.compress(b"source_id,ra\n1,2\n"))
    else:
        keys["tables"] = AuxiliaryTables(gaia_source=sky)
    there = catalogues(output)[NAMES[0]]
    assert run(sky, output, small_model, **keys).absent == (sky / spectra_name(0),)
    assert catalogues(output)[NAMES[0]] == there


# The page --------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "whole_sky.md").read_text()


def test_the_entries_on_the_page_are_the_real_ones() -> None:
    section = PAGE.split("## The manifest")[1].split("## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    fields = {one.name for one in dataclasses.fields(ManifestEntry)}
    assert listed == fields - {"kind", "first_id", "last_id"}
