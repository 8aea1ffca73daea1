"""A model as a folder: model.json, weights.safetensors, card.md. Nothing in it can execute code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels import __version__
from xplabels.calibration.domain import Domain, LabelSupport
from xplabels.calibration.error_shape import ErrorShape, terms
from xplabels.calibration.factors import Calibration
from xplabels.calibration.local import LocalFactors
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.calibration.transfer import NEAREST, CalibrationStars, coordinate_names
from xplabels.core.errors import InputError, located
from xplabels.core.labels import LABELS, Label, check_names, label_of
from xplabels.features import FeatureSet
from xplabels.features.projection import Projection
from xplabels.features.scaling import Scaling
from xplabels.forward import storage as forward_storage
from xplabels.inference.network import Architecture, Perceptron
from xplabels.io.atomic import MODEL_FILES, check_new_folder, whole_folder
from xplabels.io.files import whole
from xplabels.recipes import Recipe, parse_recipe

if TYPE_CHECKING:
    from xplabels.model import Model

FORMAT = 2
"""Format of the models written here; models of format 1 have no logarithmic labels."""
SHIPPED = Path(__file__).parents[1] / "models"
AGAIN = "get the model again, or train it again"
FILES = ("weights.safetensors", "card.md")
LABEL_AUDIT = "label_audit.csv"
"""File with the training stars whose labels are probably wrong; older models have none."""
_SHAPE = [field.name for field in fields(Architecture) if field.name != "labels"]
_SCALING = [field.name for field in fields(Scaling)]
_PROJECTION = ("wavelength", "design", "from_flux", "error_template")
_LOCAL = ("knots", "inner", "outer")
_UNSHRINKING = ("strength", "factor", "factor_95")


_FORMAT_1: dict[str, Any] = {
    "calibration_folds": 0,
    "logarithmic": [],
    "balance": 0.0,
    "defined_share": 0.0,
    "forward": False,
    "sparse_share": 0.0,
}
"""Values of newer recipe keys for models without them, as these were trained."""


def write_model(model: Model, folder: Path, overwrite: bool = False) -> None:
    """Write ``model`` as ``folder``; see :meth:`xplabels.model.Model.save`."""
    from safetensors.numpy import save

    contents = {"weights.safetensors": save(_arrays(model)), "card.md": model.card.encode("utf-8")}
    if model.label_audit:
        contents[LABEL_AUDIT] = model.label_audit.encode("utf-8")
    description = _description(model)
    description["files"] = {name: _sha256(data) for name, data in contents.items()}
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    check_new_folder(folder, MODEL_FILES, overwrite)
    with whole_folder(folder, overwrite) as partial:
        for name, data in contents.items():
            (partial / name).write_bytes(data)
        (partial / "model.json").write_text(text, encoding="utf-8")


def read_model(name_or_path: str | Path) -> dict[str, Any]:
    """Read and check a model folder: the attributes for :meth:`xplabels.model.Model.load`."""
    from safetensors.numpy import load

    folder = find_model(name_or_path)
    description = _read_description(folder)
    optional = [LABEL_AUDIT] if LABEL_AUDIT in (description.get("files") or {}) else []
    contents = {name: _read_checked(folder, name, description) for name in (*FILES, *optional)}
    with whole(folder, "model: its parts do not fit together", AGAIN), located(folder):
        arrays = load(contents["weights.safetensors"])
        model = _rebuild(description, arrays, contents["card.md"].decode("utf-8"))
        return model | {"label_audit": contents.get(LABEL_AUDIT, b"").decode("utf-8")}


def shipped() -> list[str]:
    """Names of the models that come with the package.

    Examples
    --------
    >>> shipped()
    ['apogee-dr17-library']
    """
    if not SHIPPED.is_dir():
        return []
    return sorted(path.name for path in SHIPPED.iterdir() if (path / "model.json").is_file())


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model: an existing path or, if there is none, that of a shipped name.

    Raises :class:`InputError` if there is neither.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    if str(name_or_path) in shipped():
        return SHIPPED / str(name_or_path)
    raise InputError(
        f"no model {str(name_or_path)!r}",
        remedy=f"give a model folder or one of: {', '.join(shipped()) or 'none is shipped'}",
    )


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        data = (folder / "model.json").read_bytes()
    except OSError as error:
        raise InputError(
            f"is not a model: model.json cannot be read ({error.strerror})",
            where=folder,
            remedy="a model is a folder with model.json, weights.safetensors and card.md",
        ) from None
    with whole(folder / "model.json", "JSON file", AGAIN):
        description = json.loads(data)
    if not isinstance(description, dict) or description.get("format") not in range(1, FORMAT + 1):
        raise InputError(
            f"model.json has none of the formats 1 to {FORMAT}",
            where=folder,
            remedy="update xplabels",
        )
    description["sha256"] = _sha256(data)
    return description


def _read_checked(folder: Path, name: str, description: dict[str, Any]) -> bytes:
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"a file of the model is missing ({error.strerror})"
        raise InputError(what, where=path, remedy=AGAIN) from None
    files = description.get("files")
    if not isinstance(files, dict) or _sha256(data) != files.get(name):
        what = "was altered: its SHA-256 is not the one in model.json"
        raise InputError(what, where=path, remedy=AGAIN)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _arrays(model: Model) -> dict[str, NDArray[Any]]:
    local = model.calibration.local
    arrays: dict[str, NDArray[Any]] = {
        "calibration.shape": model.calibration.shape.weights,
        "calibration.bare": np.broadcast_to(local.bare, (2, len(model.names))),
        "domain.whitening": model.domain.whitening,
        "label_range": model.label_range,
    }
    for prefix, part, names in (
        ("scaling", model.scaling, _SCALING),
        ("calibration", model.calibration, ("factor", "factor_95", "joint")),
        ("local", local if local.knots.size else None, _LOCAL),
        ("stars", model.calibration_stars, ("coordinates", "ratios")),
        ("projection", model.feature_set.projection, _PROJECTION),
        ("unshrinking", model.unshrinking, (*_UNSHRINKING, "joint")),
        ("support", model.support, ("low", "share")),
    ):
        if part is not None:
            arrays |= {f"{prefix}.{name}": getattr(part, name) for name in names}
    if model.forward is not None:
        arrays |= forward_storage.to_arrays(model.forward)
    for number, network in enumerate(model.networks):
        arrays |= {f"network.{number}.{name}": array for name, array in network.arrays.items()}
    # safetensors needs C order; ascontiguousarray would make 0-d arrays 1-d
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def _description(model: Model) -> dict[str, Any]:
    features, architecture = model.feature_set, model.networks[0].architecture
    provenance = {k: v for k, v in model.metadata.items() if k not in ("files", "sha256")}
    return provenance | {
        "format": FORMAT,
        "labels": [
            {
                "name": name,
                "unit": label_of(name).unit,
                "trained_from": float(low),
                "trained_to": float(high),
                **({} if name in LABELS else label_of(name).about()),
            }
            for name, (low, high) in zip(model.names, model.label_range, strict=True)
        ],
        "features": {
            "names": list(features.names),
            "widths": list(features.widths),
            "auxiliary": list(features.auxiliary),
            "covariance": features.covariance,
            "extinction_error": features.extinction_error,
            "noise": features.noise,
            "trained_on": "coefficients" if features.projection is None else "sampled",
        },
        "network": {
            "members": len(model.networks),
            **{name: getattr(architecture, name) for name in _SHAPE},
            "flop_a_star_with_jacobian": architecture.flop_with_jacobian * len(model.networks),
        },
        "domain_threshold": model.domain.threshold,
        "support": None
        if model.support is None
        else {"columns": list(model.support.columns), "least": model.support.least},
        "forward": None if model.forward is None else forward_storage.thresholds(model.forward),
        "common": list(model.common),
        "recipe": model.recipe.to_dict(),
    }


def _rebuild(
    description: dict[str, Any], arrays: dict[str, NDArray[Any]], card: str
) -> dict[str, Any]:
    """A model's attributes from its parts; raises if they do not fit together."""
    features, network = description["features"], description["network"]
    widths = (features["widths"][0], features["widths"][1])
    projection = None
    if features["trained_on"] == "sampled":
        stored = {name: arrays[f"projection.{name}"] for name in _PROJECTION}
        projection = Projection(widths=widths, **stored)
    feature_set = FeatureSet(
        widths,
        tuple(features["auxiliary"]),
        features["covariance"],
        features["extinction_error"],
        projection,
        features["noise"],
    )
    names = check_names([_label(label) for label in description["labels"]])
    shape = {name: network[name] for name in _SHAPE if name in network}
    architecture = Architecture(labels=len(names), **shape | {"hidden": tuple(network["hidden"])})
    common = tuple(map(int, description.get("common", ())))
    if description["format"] == 1:
        arrays["scaling.logarithmic"] = np.zeros(len(names), bool)
    scaling = Scaling(**{name: arrays[f"scaling.{name}"] for name in _SCALING})
    _check(description, arrays, feature_set, architecture, len(names))
    if network["members"] < 1:
        raise ValueError("a model needs at least one network")
    return {
        "names": names,
        "feature_set": feature_set,
        "scaling": scaling,
        "networks": tuple(
            Perceptron(architecture, _with_prefix(arrays, f"network.{number}."))
            for number in range(network["members"])
        ),
        "recipe": _recipe(description),
        "calibration": Calibration(
            arrays["calibration.factor"],
            arrays["calibration.factor_95"],
            _joint(arrays["calibration.joint"]),
            ErrorShape(arrays["calibration.shape"]),
            _local(arrays, len(names)),
        ),
        "domain": Domain(arrays["domain.whitening"], float(description["domain_threshold"])),
        "label_range": arrays["label_range"],
        "metadata": description,
        "card": card,
        "unshrinking": _unshrinking(arrays, scaling),
        "support": _support(description.get("support"), arrays),
        # older models have none
        "calibration_stars": CalibrationStars(**_with_prefix(arrays, "stars."))
        if "stars.coordinates" in arrays
        else None,
        "forward": None  # in older models
        if description.get("forward") is None
        else forward_storage.from_arrays(
            arrays, description["forward"], feature_set.n_spectral, len(common or names)
        ),
        "common": common,
    }


def _label(stored: dict[str, Any]) -> Label:
    if (known := LABELS.get(stored["name"])) is None:
        unit, ucd, description, symbol = (
            str(stored.get(key, "")) for key in ("unit", "ucd", "description", "symbol")
        )
        logarithmic = bool(stored.get("logarithmic", False))
        return Label(stored["name"], unit, ucd, description, symbol, logarithmic=logarithmic)
    if stored["unit"] != known.unit:
        raise ValueError(f"{known} in {stored['unit']}, not {known.unit}")
    return known


def _support(stored: dict[str, Any] | None, arrays: dict[str, NDArray[Any]]) -> LabelSupport | None:
    if stored is None:
        return None
    columns, least = tuple(map(int, stored["columns"])), float(stored["least"])
    return LabelSupport(columns, arrays["support.low"], arrays["support.share"], least)


def _joint(stored: NDArray[Any]) -> tuple[float, float]:
    inner, outer = np.broadcast_to(stored, 2)  # older models have one for both ellipsoids
    return float(inner), float(outer)


def _local(arrays: dict[str, NDArray[Any]], labels: int) -> LocalFactors:
    # either is absent from older models, and the knots where there were too few stars
    bare = arrays.get("calibration.bare", np.ones((2, labels)))
    if "local.knots" not in arrays:
        return replace(LocalFactors.flat(labels), bare=bare)
    return LocalFactors(**_with_prefix(arrays, "local."), bare=bare)


def _unshrinking(arrays: dict[str, NDArray[Any]], scaling: Scaling) -> ShrinkageCorrection | None:
    if "unshrinking.strength" not in arrays:  # in older models
        return None
    return ShrinkageCorrection(
        scaling,
        joint=_joint(arrays["unshrinking.joint"]),
        **{name: arrays[f"unshrinking.{name}"] for name in _UNSHRINKING},
    )


def _recipe(description: dict[str, Any]) -> Recipe:
    try:
        return parse_recipe(_FORMAT_1 | description["recipe"], "model.json")
    except InputError as error:
        made = description.get("versions", {}).get("xplabels", "another version")
        raise InputError(
            f"its recipe cannot be read ({error.what}): it was made by xplabels {made}",
            where="model.json",
            remedy=f"predict with that version, or train the model again with {__version__}",
        ) from None


def _check(
    description: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    features: FeatureSet,
    architecture: Architecture,
    labels: int,
) -> None:
    """Raise ValueError if parts do not fit together; networks check their arrays themselves."""
    if description["features"]["names"] != list(features.names):
        raise ValueError("the inputs' names are not those of the feature set")
    inputs, n, noise = len(features.names), features.n_spectral, 2 * features.noise
    for what, count, allowed in (
        ("inputs", architecture.inputs, (inputs,)),
        ("masks", architecture.masks, (0, len(features.auxiliary))),
        ("noise levels", architecture.noise, (noise,)),
    ):
        if count not in allowed:
            raise ValueError(f"the network takes {count} {what}, there are {allowed[-1]}")
    common = description.get("common") or range(labels)
    if not set(common) <= {*range(labels)}:
        raise ValueError(f"the common labels {common} are not all labels")
    coefficients = terms(np.zeros((1, len(common))), np.zeros((1, noise))).shape[1]
    if arrays["calibration.shape"].shape not in ((labels, 0), (labels, coefficients)):
        raise ValueError(f"the errors' shape needs {coefficients} coefficients a label, or none")
    if arrays["scaling.logarithmic"].dtype != bool:
        raise ValueError("scaling.logarithmic is not yes or no for each label")
    components = arrays["domain.whitening"].shape[1]
    shapes: dict[str, tuple[int, ...]] = {
        "scaling.x_mean": (inputs,), "scaling.x_scale": (inputs,),
        "scaling.x_correlation": (inputs, inputs), "scaling.y_mean": (labels,),
        "scaling.y_scale": (labels,), "scaling.noise_mean": (noise,),
        "scaling.noise_scale": (noise,), "scaling.logarithmic": (labels,),
        "calibration.factor": (labels,),
        "calibration.factor_95": (labels,), "domain.whitening": (inputs, components),
        "label_range": (labels, 2),
    }  # fmt: skip
    if features.projection is not None:
        samples = len(features.projection.wavelength)
        shapes |= {
            "projection.wavelength": (samples,), "projection.design": (samples, n),
            "projection.from_flux": (n, samples), "projection.error_template": (n,),
        }  # fmt: skip
    if stored := description.get("support"):
        columns = stored["columns"]
        if not all(column in range(labels) for column in columns):
            raise ValueError(f"the support's columns {columns} are not all labels")
        grid = arrays["support.share"].shape[1:]
        shapes |= {"support.low": (len(columns),), "support.share": (labels, *grid)}
        if len(grid) != len(columns) or not all(grid):
            raise ValueError(f"the support has the axes {grid} for {len(columns)} labels")
    if "calibration.bare" in arrays:
        shapes["calibration.bare"] = (2, labels)
    if "local.knots" in arrays:
        knots = len(common) + noise, arrays["local.knots"].shape[-1]
        shapes |= {"local.knots": knots, "local.inner": (labels, *knots)}
        shapes["local.outer"] = shapes["local.inner"]
    if "stars.coordinates" in arrays:
        stars = len(arrays["stars.coordinates"])
        if stars < NEAREST:
            raise ValueError(f"{stars} calibration stars are fewer than {NEAREST}")
        compared = len(coordinate_names([""] * len(common), features.auxiliary))
        shapes |= {"stars.coordinates": (stars, compared), "stars.ratios": (2, stars, labels)}
    if "unshrinking.strength" in arrays:
        shapes |= {f"unshrinking.{name}": (labels,) for name in _UNSHRINKING}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, expected {shape}")


def _with_prefix(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, named without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
