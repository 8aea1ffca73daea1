"""Stellar labels, with honest errors, from Gaia BP/RP spectra.

Everything a script needs stands here; each name is loaded when it is first used, so that
``import xplabels`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xplabels.api.validation import validate
    from xplabels.core.errors import InputError
    from xplabels.core.flags import Flag
    from xplabels.core.labels import LABELS, Labels
    from xplabels.core.prediction import Prediction
    from xplabels.core.stars import Photometry, Stars
    from xplabels.giants import semi_synthetic_giants
    from xplabels.instrument.sed import Sed, read_sed
    from xplabels.instrument.simulation import simulate_spectra
    from xplabels.io import read, read_blocks, write_stars
    from xplabels.io.catalogue import write_catalogue
    from xplabels.io.tables import join_labels, join_photometry
    from xplabels.model import Model, shipped
    from xplabels.model.refitting import fit_unshrinking
    from xplabels.recipes import Recipe, load_recipe
    from xplabels.report import write_report
    from xplabels.surveys.library import read_library
    from xplabels.synthetic import example_stars, simulate_stars
    from xplabels.training import train
    from xplabels.validation import score_prediction
    from xplabels.validation.surveys import open_survey

__version__ = "0.1.0"

_MODULE_OF = {
    "LABELS": "core.labels",
    "Flag": "core.flags",
    "InputError": "core.errors",
    "Labels": "core.labels",
    "Model": "model",
    "Photometry": "core.stars",
    "Prediction": "core.prediction",
    "Recipe": "recipes",
    "Sed": "instrument.sed",
    "Stars": "core.stars",
    "example_stars": "synthetic",
    "fit_unshrinking": "model.refitting",
    "join_labels": "io.tables",
    "join_photometry": "io.tables",
    "load_recipe": "recipes",
    "open_survey": "validation.surveys",
    "read": "io",
    "read_blocks": "io",
    "read_library": "surveys.library",
    "read_sed": "instrument.sed",
    "score_prediction": "validation",
    "semi_synthetic_giants": "giants",
    "shipped": "model",
    "simulate_spectra": "instrument.simulation",
    "simulate_stars": "synthetic",
    "train": "training",
    "validate": "api.validation",
    "write_catalogue": "io.catalogue",
    "write_report": "report",
    "write_stars": "io",
}

__all__ = [
    "LABELS",
    "Flag",
    "InputError",
    "Labels",
    "Model",
    "Photometry",
    "Prediction",
    "Recipe",
    "Sed",
    "Stars",
    "example_stars",
    "fit_unshrinking",
    "join_labels",
    "join_photometry",
    "load_recipe",
    "open_survey",
    "read",
    "read_blocks",
    "read_library",
    "read_sed",
    "score_prediction",
    "semi_synthetic_giants",
    "shipped",
    "simulate_spectra",
    "simulate_stars",
    "train",
    "validate",
    "write_catalogue",
    "write_report",
    "write_stars",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'xplabels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"xplabels.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
