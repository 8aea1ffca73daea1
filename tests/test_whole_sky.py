"""A folder of bulk files to a folder of catalogues: every star once, and what stands stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable
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
    make_sky,
    run,
    spectra_name,
    swap,
    truncate,
)
from xplabels import io as archive
from xplabels.cli import build_parser, main
from xplabels.cli.predict import summary_lines
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.pipeline import (
    ManifestEntry,
    PredictOptions,
    file,
    find_inputs,
    predict_catalogue,
    predict_file,
    predict_folder,
    read_entry,
)
from xplabels.pipeline.manifest import entry_path

# What comes out --------------------------------------------------------------------------------


def test_each_file_has_its_catalogue_and_its_entry(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model
) -> None:
    output = whole_sky.parent / "undisturbed"
    assert list(labelled_sky) == [
        spectra_name(number).replace(".csv.gz", ".parquet") for number in range(3)
    ]
    for number, (name, content) in enumerate(labelled_sky.items()):
        entry = read_entry(output / name)
        assert entry is not None
        source = whole_sky / spectra_name(number)
        assert entry.input.md5 == hashlib.md5(source.read_bytes()).hexdigest()
        assert entry.output.md5 == hashlib.md5(content).hexdigest()
        assert entry.rows_in == entry.rows_out == ROWS
        assert entry.settings["model"]["sha256"] == small_model.metadata.get("sha256", "")
        table = pq.read_table(output / name)
        assert table["source_id"].to_pylist() == sorted(table["source_id"].to_pylist())
        flags = table["flags"].to_numpy()
        assert entry.flags == {
            str(flag.name): count
            for flag in Flag
            if (count := int(((flags & flag.value) != 0).sum()))
        }
    account = json.loads((output / "_manifest" / "run.json").read_text())
    assert account["complete"]
    assert account["stars"] == 3 * ROWS


def test_the_labels_are_those_of_the_stars(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, small_stars: Stars
) -> None:
    from dataclasses import replace

    from sky import placed
    from xplabels.core.stars import Photometry

    bare = replace(small_stars, photometry=Photometry.missing(len(small_stars)))
    expected = small_model.predict(placed(bare[slice(0, ROWS)], 0))
    table = pq.read_table(whole_sky.parent / "undisturbed" / next(iter(labelled_sky)))
    assert (table["source_id"].to_numpy() == expected.source_id).all()
    for k, name in enumerate(expected.names):
        np.testing.assert_allclose(table[name].to_numpy(), expected.values[:, k], rtol=1e-5)
        np.testing.assert_allclose(
            table[f"{name}_error"].to_numpy(), expected.errors[:, k], rtol=1e-5
        )


@pytest.mark.parametrize("block", [17, 100, 4096])
def test_labels_do_not_depend_on_the_block(
    block: int, whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output = tmp_path / "one.parquet"
    predict_file(small_model, whole_sky / spectra_name(0), output, block=block)
    one, other = (
        pq.read_table(output),
        pq.read_table(whole_sky.parent / "undisturbed" / next(iter(labelled_sky))),
    )
    for name in other.column_names:
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=2e-6)


def test_row_groups_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "ROW_GROUP", 50)
    table = pa.table({"x": np.random.default_rng(0).normal(size=173)})
    for block in (1, 7, 50, 173):
        groups = list(file.regrouped(table[n : n + block] for n in range(0, 173, block)))
        assert [len(group) for group in groups] == [50, 50, 50, 23]
        assert all(group["x"].num_chunks == 1 for group in groups)
        assert pa.concat_tables(groups).equals(table)


def test_order_and_place_of_the_files_do_not_matter(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    fragile_sky.rename(moved)
    listed = find_inputs(sorted(moved.iterdir(), reverse=True))
    predict_folder(listed, tmp_path / "out", small_model, PredictOptions(), progress=False)
    assert catalogues(tmp_path / "out") == labelled_sky


def test_bulk_files_and_star_tables_give_the_same_labels(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "stars.parquet"
    write_stars(archive.read(whole_sky / spectra_name(0)), path)
    predict_file(small_model, path, tmp_path / "labels.parquet")
    one = pq.read_table(tmp_path / "labels.parquet")
    other = pq.read_table(whole_sky.parent / "undisturbed" / next(iter(labelled_sky)))
    for name in other.column_names:
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=2e-6)


# Runs that go on -------------------------------------------------------------------------------


def test_what_is_complete_is_not_made_again(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(fragile_sky, output, small_model)
    before = {path: path.stat().st_mtime_ns for path in output.glob("[!.]*.parquet")}
    for path in fragile_sky.iterdir():
        os.utime(path)  # copied elsewhere and back: their sums are still the same
    assert run(fragile_sky, output, small_model).resumed == 3
    assert {path: path.stat().st_mtime_ns for path in output.glob("[!.]*.parquet")} == before


@pytest.mark.parametrize("harm", [truncate, swap, Path.unlink])
def test_what_does_not_fit_its_entry_is_made_again(
    harm: Callable[[Path], None],
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    run(fragile_sky, output, small_model)
    harm(output / list(labelled_sky)[1])
    summary = run(fragile_sky, output, small_model)
    assert summary.resumed == 2
    gone = harm is Path.unlink
    assert summary.remade == ({} if gone else {"truncated or altered since": 1})
    assert ("1 truncated or altered" in "\n".join(summary_lines(summary))) is not gone
    assert catalogues(output) == labelled_sky


def test_a_changed_input_is_labelled_again(
    fragile_sky: Path, small_model: Model, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(fragile_sky, output, small_model)
    edited(fragile_sky / spectra_name(1), lambda lines: lines[:-1])
    summary = run(fragile_sky, output, small_model)
    assert summary.resumed == 2
    assert summary.stars == 3 * ROWS - 1


def another(model: Model) -> Model:
    """The same under another digest."""
    return dataclasses.replace(model, metadata=model.metadata | {"sha256": "f" * 64})


def test_another_model_makes_every_output_again_and_says_so(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output, names = tmp_path / "out", list(labelled_sky)
    run(fragile_sky, output, small_model)
    caplog.set_level("INFO", "xplabels")
    truncate(output / names[1])
    summary = run(fragile_sky, output, another(small_model))
    before = str(small_model.metadata.get("sha256", ""))[:12]
    (told,) = caplog.messages
    assert told.startswith(f"{output}: 3 outputs to be made again: ")
    assert re.search(rf"2 made with model \S+.*{before}.*, now \S+ \(sha256 f{{12}}\)", told)
    assert "; 1 truncated or altered" in told or "1 truncated or altered since; " in told
    assert sorted(summary.remade.values()) == [1, 2]
    assert "3 outputs made again: " in "\n".join(summary_lines(summary))
    account = json.loads((output / "_manifest" / "run.json").read_text())
    assert account["made_again"] == summary.remade
    for name in names:
        entry = read_entry(output / name)
        assert entry is not None
        assert entry.settings["model"]["sha256"] == "f" * 64
    again = run(fragile_sky, output, another(small_model))
    assert (again.resumed, again.remade) == (3, {})


def test_the_output_of_another_model_stays_until_the_next_is_whole(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    output, names = tmp_path / "out", list(labelled_sky)
    run(fragile_sky, output, small_model)

    def look(stars: Stars) -> None:  # while the second file is being labelled
        seen.append(catalogues(output))
        if len(seen) == 2:
            raise InputError("breaks")

    seen: list[dict[str, bytes]] = []
    model = Wrapped(another(small_model), tmp_path)
    object.__setattr__(model, "happens", look)
    summary = run(fragile_sky, output, model)
    assert [found.keys() for found in seen] == [labelled_sky.keys()] * 3
    assert seen[0] == labelled_sky
    assert [found[names[1]] for found in seen] == [labelled_sky[names[1]]] * 3
    assert "stays as it was" in summary.failed[fragile_sky / spectra_name(1)]
    assert sum(summary.remade.values()) == 2
    assert catalogues(output)[names[1]] == labelled_sky[names[1]]
    entry = read_entry(output / names[1])
    assert entry is not None
    assert entry.settings["model"]["sha256"] == small_model.metadata.get("sha256", "")


def test_a_file_of_the_user_is_not_replaced(
    fragile_sky: Path,
    labelled_sky: dict[str, bytes],
    small_model: Model,
    small_stars: Stars,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    mine = output / list(labelled_sky)[2]
    mine.write_text("mine")
    with pytest.raises(InputError, match="was not made here"):
        run(fragile_sky, output, small_model)
    assert [path.name for path in output.glob("[!.]*.parquet")] == [mine.name]
    assert mine.read_text() == "mine"
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
                    predict(inputs, tmp_path / output, small_model, options, progress=False)
                errors.append(error)

    model: Any = Wrapped(small_model, tmp_path)
    object.__setattr__(model, "happens", second)
    assert predict_catalogue(inputs, tmp_path / "one.csv", model, options).stars == 3 * ROWS
    (tmp_path / "one.csv").unlink()
    assert predict_folder(inputs, tmp_path / "out", model, options).stars == 3 * ROWS
    assert len(errors) == 6


def test_an_entry_without_its_output_counts_for_nothing(
    fragile_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    """As after a kill between the two."""
    output = tmp_path / "out"
    run(fragile_sky, output, small_model)
    path = output / next(iter(labelled_sky))
    path.unlink()
    assert entry_path(path).exists()
    assert run(fragile_sky, output, small_model).resumed == 2
    entry_path(path).write_text("{")
    assert run(fragile_sky, output, small_model).resumed == 2
    assert catalogues(output) == labelled_sky


def test_one_catalogue_of_a_folder_has_the_same_rows(
    whole_sky: Path, labelled_sky: dict[str, bytes], small_model: Model, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    words = ["predict", str(whole_sky), "--model", str(tmp_path / "model"), "--output"]
    assert main([*words, str(tmp_path / "one.parquet")]) == 0
    one = pq.read_table(tmp_path / "one.parquet")
    parts = [pq.read_table(whole_sky.parent / "undisturbed" / name) for name in labelled_sky]
    assert one.replace_schema_metadata().equals(pa.concat_tables(parts).replace_schema_metadata())


# The page --------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "whole_sky.md").read_text()


@pytest.mark.parametrize("command", re.findall(r"^\$ (xplabels .+)$", PAGE, re.MULTILINE))
def test_documented_commands_parse(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


def test_the_entries_on_the_page_are_the_real_ones() -> None:
    section = PAGE.split("## What became of each file")[1].split("## ")[0]
    listed = {
        name
        for cell in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    fields = {one.name for one in dataclasses.fields(ManifestEntry)}
    assert listed == fields - {"kind", "first_id", "last_id"}
