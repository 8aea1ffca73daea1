"""What a user sees stays what it was: labels, metrics, columns and command lines.

The values in ``goldens/`` were made before the code was rearranged. They are made again, by
``python tests/test_goldens.py``, only where a difference is explained in the commit.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDENS = Path(__file__).parent / "goldens"
MODEL = "apogee-dr17-library"
VERBS = (
    "demo", "library", "fetch", "giants", "match", "select", "train", "convert", "predict",
    "validate", "models", "releases", "simulate", "explain", "audit", "check-errors", "label",
    "basis",
)  # fmt: skip
TOLERANCE = 1e-5
"""Relative, of every number but those of a training, whose sums depend on the processor."""
RESIDUAL_TOLERANCE = 1e-4
"""Of metrics: a residual is a hundredth of its label, which the network computes in float32."""
SCALES = dict.fromkeys(("bias", "rmse", "robust", "median_residual"), 1.0)
"""Statistics of residuals are differences of labels of this size: absolutely as good as these."""
TRAINING_TOLERANCE = 1e-3


def golden(name: str) -> Any:
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


def assert_alike(
    found: Any, expected: Any, tolerance: float = TOLERANCE, at: str = "", absolute: float = 1e-8
) -> None:
    """The same structure, words and, within the tolerance, numbers."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), at
        assert sorted(found) == sorted(expected), at
        for key, value in expected.items():
            # a correlation near zero, or a residual, is a difference of larger numbers
            scale = (
                1.0
                if key.endswith("_corr")
                else SCALES.get(key, 0.0) * (5000 if ".teff" in at else 1)
            )
            absolute = tolerance * scale if scale else 1e-8
            assert_alike(found[key], value, tolerance, f"{at}.{key}", absolute)
    elif isinstance(expected, list):
        assert isinstance(found, list), at
        assert len(found) == len(expected), at
        for n, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_alike(one, other, tolerance, f"{at}[{n}]", absolute)
    elif isinstance(expected, float) and isinstance(found, int | float):
        close = math.isclose(found, expected, rel_tol=tolerance, abs_tol=absolute)
        assert close or (math.isnan(found) and math.isnan(expected)), f"{at}: {found} != {expected}"
    else:
        assert found == expected, at


def rounded(found: Any) -> Any:
    """Nine digits of every number."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.9g}") if isinstance(found, float) else found


def rows_of(table: Any) -> dict[str, list[Any]]:
    """A catalogue's columns as lists; NaN is None."""
    plain: dict[str, list[Any]] = {}
    for name in table.colnames:
        values = np.asarray(table[name])
        lost = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        plain[name] = [None if bad else v.item() for v, bad in zip(values, lost, strict=True)]
    return plain


def made_labels() -> dict[str, list[Any]]:
    """Labels and correlations of fifty simulated stars, some without photometry."""
    from xplabels import Model, Photometry, example_stars

    stars = example_stars(50)
    light = stars.photometry
    light.values[::3], light.errors[::3] = np.nan, np.nan
    stars = stars.with_photometry(Photometry(light.values, light.errors))
    return rows_of(Model.load(MODEL).predict(stars, correlations=True).to_table())


def real_labels(file: Path) -> dict[str, list[Any]]:
    """Labels of the archive's own example stars, as the command line writes them."""
    from xplabels import Model, read

    model = Model.load(MODEL)
    best = rows_of(model.predict(read([file])).to_table())
    best["teff_unshrunk"] = rows_of(model.unshrunk().predict(read([file])).to_table())["teff"]
    return best


def metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of test stars among 6,000 of the real library, without the run's name."""
    from xplabels import read_library, write_stars
    from xplabels.cli import main

    write_stars(read_library()[:6000], folder / "library.parquet")
    words = [MODEL, str(folder / "library.parquet"), "--output", str(folder / "validation")]
    assert main(["validate", *words]) == 0
    found = json.loads((folder / "validation" / "metrics.json").read_text(encoding="utf-8"))
    found.pop("provenance")
    curves = found["what it looks at"]["correlations"]
    found["what it looks at"]["correlations"] = {
        label: {pair: value for pair, value in pairs.items() if "bossbrain" not in pair}
        for label, pairs in curves.items()
    }  # the goldens were made where the emulator was not installed
    # the bins are many, and made alike
    found["bins"] = {along: found["bins"][along] for along in ("g_mag", "fe_h_predicted")}
    return found


def trained() -> dict[str, list[float]]:
    """Labels and errors by a small model, after four epochs."""
    from xplabels import Recipe, simulate_stars, train

    recipe = Recipe(
        hidden=(16,), epochs=4, batch_size=128, missing_fraction=0.1, flux_samples=0,
        reddening=0.0, calibration_folds=2,
    )  # fmt: skip
    stars = simulate_stars(900, labels=("teff", "logg"), widths=(6, 5), noise=5.0, seed=2)[0]
    model = train(stars, ("teff", "logg"), recipe, seed=3, progress=False)
    found = model.predict(simulate_stars(20, labels=("teff", "logg"), widths=(6, 5), seed=9)[0])
    return {"values": found.values.ravel().tolist(), "errors": found.errors.ravel().tolist()}


def catalogues(folder: Path) -> dict[str, Any]:
    """Columns with units and UCDs as each format carries them."""
    from astropy.table import Table

    from xplabels import Model, example_stars, write_catalogue

    prediction = Model.load(MODEL).predict(example_stars(2), correlations=True)
    table = prediction.to_table()
    found: dict[str, Any] = {}
    for ending, form in (("fits", "fits"), ("ecsv", "ascii.ecsv"), ("vot", "votable")):
        path = folder / f"labels.{ending}"
        write_catalogue(prediction, path)
        written = Table.read(path, format=form)
        found[ending] = [
            [name, str(written[name].unit or ""), written[name].dtype.str]
            for name in written.colnames
        ]
    found["ucd"] = {name: table[name].meta["ucd"] for name in table.colnames}
    write_catalogue(prediction, folder / "labels.csv")
    found["csv"] = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()[0]
    return found


def command_lines() -> dict[str, Any]:
    """Every verb's words: positional arguments and options, with defaults and choices."""
    from xplabels.cli import build_parser

    (verbs,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {
        verb: {
            " ".join(action.option_strings) or action.dest: {
                "nargs": action.nargs,
                "required": action.required,
                "default": repr(action.default),
                "choices": list(map(str, action.choices)) if action.choices else None,
            }
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
        }
        for verb, parser in verbs.choices.items()
    }


def test_labels_of_made_stars_are_what_they_were() -> None:
    assert_alike(made_labels(), golden("made_labels"))


def test_labels_of_the_archives_stars_are_what_they_were(shared_data: Path) -> None:
    for ending in ("csv", "fits", "xml"):
        file = shared_data / "xp_archive" / f"XP_CONTINUOUS_RAW.{ending}"
        # VOTable and FITS of the archive differ from its text in the last digits
        assert_alike(real_labels(file), golden("real_labels"), 1e-4 if ending != "csv" else 1e-5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # GaiaXPy's files
def test_metrics_are_what_they_were(tmp_path: Path) -> None:
    assert_alike(metrics(tmp_path), golden("metrics"), RESIDUAL_TOLERANCE)


def test_a_training_learns_what_it_did() -> None:
    assert_alike(trained(), golden("trained"), TRAINING_TOLERANCE)


def test_catalogues_have_the_columns_they_had(tmp_path: Path) -> None:
    assert catalogues(tmp_path) == golden("catalogues")


@pytest.mark.parametrize("verb", VERBS)
def test_every_word_of_a_command_line_still_works(verb: str) -> None:
    assert sorted(golden("command_lines")) == sorted(VERBS)
    found, expected = command_lines()[verb], golden("command_lines")[verb]
    words = {word: action for words, action in found.items() for word in words.split()}
    for old, action in expected.items():
        for word in old.split():
            assert words.get(word) == action, f"{verb} {word}"


def remake(shared: Path) -> None:
    """Write every golden anew."""
    import tempfile

    GOLDENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        made = {
            "made_labels": made_labels(),
            "real_labels": real_labels(shared / "xp_archive" / "XP_CONTINUOUS_RAW.csv"),
            "metrics": metrics(Path(one)),
            "trained": trained(),
            "catalogues": catalogues(Path(other)),
            "command_lines": command_lines(),
        }
    for name, value in made.items():
        text = json.dumps(rounded(value), separators=(",", ":"))
        (GOLDENS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    remake(Path(__file__).parents[2] / "shared" / "data")
