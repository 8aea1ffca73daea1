"""Saved models: what is written comes back, and whatever was damaged is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from conftest import altered
from xplabels.calibration.domain import LabelSupport
from xplabels.calibration.error_shape import ErrorShape, terms
from xplabels.calibration.local import LocalFactors
from xplabels.calibration.transfer import CalibrationStars
from xplabels.core.errors import InputError
from xplabels.features import FeatureSet
from xplabels.features.projection import Projection
from xplabels.model import Model
from xplabels.model.card import write_card
from xplabels.model.storage import find_model


@pytest.fixture
def folder(small_model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    small_model.save(path)
    return path


def whole(model: Model) -> Model:
    """The model with every further part that one may have."""
    random, k = np.random.default_rng(0), len(model.names)
    labels, noise = np.zeros((1, k)), np.zeros((1, 2))
    compared = k + 3 + len(model.feature_set.auxiliary)
    knots = np.sort(random.standard_normal((k + 2, 5)), axis=1)
    heights = random.standard_normal((2, k, k + 2, 5))
    return replace(
        model,
        calibration=replace(
            model.calibration,
            shape=ErrorShape(0.1 * random.standard_normal((k, terms(labels, noise).shape[1]))),
            local=LocalFactors(knots, *heights, bare=np.array([[0.8], [0.9]]) * np.ones((2, k))),
        ),
        support=LabelSupport((0, 1), np.zeros(2), np.ones((k, 4, 3), np.float32), 0.5),
        calibration_stars=CalibrationStars(
            random.standard_normal((200, compared)).astype(np.float32),
            np.ones((2, 200, k), np.float32),
        ),
    )


@pytest.mark.parametrize("change", [lambda model: model, whole], ids=["trained", "whole"])
def test_a_loaded_model_predicts_the_very_same(small_model, small_stars, tmp_path, change) -> None:
    model, folder = change(small_model), tmp_path / "model"
    model.save(folder)
    loaded = Model.load(folder)
    one, other = model.predict(small_stars), loaded.predict(small_stars)
    for name in ("values", "errors", "errors_input", "errors_model", "errors_excess",
                 "errors_95", "domain_distance", "joint_factors", "flags"):  # fmt: skip
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert loaded.recipe == small_model.recipe
    assert loaded.card == small_model.card
    assert (
        other.meta["MODELSHA"] == hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    )


def test_saving_what_was_loaded_writes_the_same_files(folder, tmp_path) -> None:
    again = tmp_path / "again"
    Model.load(folder).save(again)
    for name in ("model.json", "weights.safetensors", "card.md"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_model_json_says_what_the_model_is(folder, small_model, small_stars) -> None:
    """Issue 2, point 5: labels, units, features, network, recipe, seeds, training set, split rule,
    validation metrics, versions; the history as well."""
    text = json.loads((folder / "model.json").read_text())
    assert [(label["name"], label["unit"]) for label in text["labels"]] == [
        ("teff", "K"), ("logg", "dex"),
    ]  # fmt: skip
    assert text["labels"][0]["trained_from"] < text["labels"][0]["trained_to"]
    assert text["features"]["names"] == list(small_model.feature_set.names)
    assert text["features"]["widths"] == [6, 5]
    assert text["features"]["trained_on"] == "coefficients"
    assert text["network"]["hidden"] == [24, 16]
    assert text["recipe"]["epochs"] == 12
    assert text["seed"] == 3
    assert text["name"] == "small"
    training = text["training"]
    assert training["origin"] == "simulated stars"
    assert training["n_train"] + training["n_validation"] < len(small_stars)
    assert len(training["source_id_sha256"]) == 64
    assert training["n_per_label"] == [training["n_train"]] * 2
    assert "sha256(str(source_id))" in text["split"]["rule"]
    assert (text["split"]["test_fraction"], text["split"]["validation_fraction"]) == (0.1, 0.1)
    assert text["validation"]["n"] == training["n_validation"]
    assert text["validation"]["labels"]["teff"]["rmse"] > 0
    assert {"xplabels", "torch", "numpy", "python"} <= set(text["versions"])
    assert len(text["history"]["network"]) == 12
    for name in ("weights.safetensors", "card.md"):
        assert text["files"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_ids_digest_is_that_of_the_training_part(folder, small_stars) -> None:
    from xplabels.core.split import part_mask

    ids = np.sort(small_stars.source_id[part_mask(small_stars.source_id, "train", 0.1)])
    text = json.loads((folder / "model.json").read_text())
    wanted = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    assert text["training"]["source_id_sha256"] == wanted


def test_ensembles_and_projections_come_back(small_model, small_stars, tmp_path) -> None:
    random = np.random.default_rng(0)
    projection = Projection(
        np.linspace(1, 2, 13), random.standard_normal((13, 11)),
        random.standard_normal((11, 13)), (6, 5), np.ones(11),
    )  # fmt: skip
    old = small_model.feature_set
    model = replace(
        small_model,
        networks=tuple(deepcopy(small_model.networks[0]) for _ in range(3)),
        feature_set=FeatureSet((6, 5), old.auxiliary, "fs24", False, projection, True),
    )
    model.save(tmp_path / "m")
    loaded = Model.load(tmp_path / "m")
    assert len(loaded.networks) == 3
    np.testing.assert_array_equal(
        loaded.feature_set.projection.from_coefficients, projection.from_coefficients
    )
    assert (loaded.feature_set.covariance, loaded.feature_set.extinction_error) == ("fs24", False)
    np.testing.assert_array_equal(
        loaded.predict(small_stars).errors, model.predict(small_stars).errors
    )


@pytest.mark.parametrize("name", ["weights.safetensors", "card.md"])
def test_one_altered_byte_is_noticed(folder, name) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=rf"{name}.*altered.*SHA-256"):
        Model.load(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "card.md"])
def test_a_missing_file_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        Model.load(folder)


def put(*keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(text: dict[str, Any]) -> None:
        for key in keys[:-1]:
            text = text[key]
        text[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("format", value=99),
        put("network", "hidden", value=[24, 17]),
        put("network", "hidden", value="wide"),
        put("network", "members", value=2),
        put("network", "members", value=0),
        put("network", "masks", value=1),
        put("network", "inputs", value=9),
        put("network", "activation", value="sine"),
        put("features", "widths", value=[7, 5]),
        put("features", "widths", value=[6]),
        put("features", "auxiliary", value=["bp_rp"]),
        put("features", "trained_on", value="sampled"),
        put("features", value=None),
        put("labels", value=[{"name": "teff"}]),
        put("labels", value=[{"name": "metallicity"}, {"name": "teff"}]),
        put("recipe", "epocs", value=3),
        put("files", value=None),
        lambda text: text.pop("network"),
        lambda text: text.pop("domain_threshold"),
        put("support", "columns", value=[0, 5]),
        put("support", "columns", value=[0]),
        put("support", "columns", value=None),
        put("support", "least", value="half"),
        put("support", value=3),
        put("forward", value={}),
        put("forward", value="yes"),
        put("domain_threshold", value="far"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(small_model, tmp_path, change) -> None:
    whole(small_model).save(tmp_path / "model")
    with pytest.raises(InputError):
        Model.load(altered(tmp_path / "model", change))


NAMED = (
    "scaling.x_mean", "scaling.x_scale", "scaling.x_correlation", "scaling.y_mean",
    "scaling.y_scale", "scaling.logarithmic", "calibration.factor", "calibration.factor_95",
    "calibration.bare", "domain.whitening", "label_range", "network.0.out.weight",
)  # fmt: skip
FURTHER = (
    "local.knots",
    "local.inner",
    "local.outer",
    "support.low",
    "support.share",
    "stars.coordinates",
    "stars.ratios",
    "unshrinking.strength",
)
OPTIONAL = ("calibration.bare", "local.knots", "stars.coordinates", "unshrinking.strength")


@pytest.mark.parametrize("name", NAMED + FURTHER)
@pytest.mark.parametrize("how", ["cut", "gone", "flat", "type"])
def test_tensors_that_do_not_fit_are_refused(small_model, small_stars, tmp_path, name, how) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensor = tensors.pop(name)
        changed = {
            "cut": tensor[:-1].copy(), "flat": tensor.ravel()[:-1].copy(),
            "type": (tensor != 0).astype(np.uint8),
        }  # fmt: skip
        if how != "gone":
            tensors[name] = changed[how]

    whole(small_model).save(tmp_path / "model")
    folder = altered(tmp_path / "model", tensors=change)
    if (how == "gone" and name in OPTIONAL) or (how == "type" and name != "scaling.logarithmic"):
        Model.load(folder).predict(small_stars)  # absent as a whole, or numbers all the same
        return
    by_name = name in NAMED and how in ("cut", "gone")
    with pytest.raises(InputError, match=name.split(".")[-1] if by_name else folder.name):
        Model.load(folder)


def test_the_card_says_what_is_particular_about_labels(small_model) -> None:
    card = write_card(whole(small_model))
    assert "Learned as a logarithm: teff." in card


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe"])
def test_a_damaged_model_json_is_an_error_that_names_the_folder(folder, content) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"{folder.name}.*model\.json"):
        Model.load(folder)


def test_no_model_at_all_lists_what_there_is(tmp_path) -> None:
    with pytest.raises(InputError, match="no model 'nonesuch'"):
        Model.load("nonesuch")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty.*model\.json"):
        Model.load(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        Model.load(tmp_path / "file")


def test_a_folder_beats_a_shipped_name(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder.parent)
    shutil.copytree(folder, folder.parent / "apogee-dr17-library")
    assert find_model("apogee-dr17-library") == Path("apogee-dr17-library")


def test_what_exists_is_kept_unless_asked(folder, small_model) -> None:
    before = (folder / "model.json").read_bytes()
    (folder / "mine.txt").write_text("kept?")
    with pytest.raises(InputError, match=r"model.*exists"):
        small_model.save(folder)
    assert (folder / "model.json").read_bytes() == before
    assert (folder / "mine.txt").exists()


def test_overwriting_replaces_the_model_and_leaves_nothing_beside_it(folder, small_model) -> None:
    (folder / "card.md").write_text("damaged")
    small_model.save(folder, overwrite=True)
    Model.load(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_save_that_fails_leaves_nothing(small_model, tmp_path, monkeypatch) -> None:
    def full(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space left"):
        small_model.save(tmp_path / "m")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_not_there_is_an_error(small_model, tmp_path) -> None:
    with pytest.raises(InputError, match="folder does not exist"):
        small_model.save(tmp_path / "nowhere" / "m")


def test_nothing_saved_can_execute_code(folder) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md", "label_audit.csv", "model.json", "weights.safetensors",
    ]  # fmt: skip
    tensors = load_file(folder / "weights.safetensors")
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
