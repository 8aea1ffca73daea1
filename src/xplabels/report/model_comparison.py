"""Another model's predictions of the same stars beside a model's: what an ablation costs.

FS24's figure A1 shows one label with and without an input; so does this, for every label, with
the ratio of the errors. Stars are resampled in pairs: what both models find hard does not blur it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.prediction import Prediction
from xplabels.core.scores import Array, robust_scatter
from xplabels.figures import populations as figures
from xplabels.report.sections import Picture, Section, Table
from xplabels.validation import Validation
from xplabels.validation.wording import aligned, as_json, with_unit

MEASURES = ("rmse", "robust")
FEWEST_STARS = 2


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the same stars.

    Attributes
    ----------
    title, note
        What the other model is called, and what is to be said of the comparison.
    ratios
        ``ratios[label]``: n, and for ``rmse`` and ``robust`` the other model's, this one's, their
        ratio and its bootstrap error.
    columns
        Known and predicted labels [N, K] by model, for the figure.
    """

    title: str
    note: str
    ratios: Mapping[str, Mapping[str, float]]
    columns: tuple[figures.Pair, ...] = field(repr=False)

    def to_metrics(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``, under ``beside``."""
        plain: dict[str, Any] = as_json(
            {"model": self.title, "note": self.note, "labels": dict(self.ratios)}
        )
        return plain

    def to_text(self) -> str:
        """For the terminal."""
        header = ["label", "N"]
        for measure in ("RMSE", "robust"):
            header += [measure, "other's", "ratio"]
        rows = [[cell.replace("±", "+-") for cell in row] for row in self._rows()]
        title = f"beside {self.title}, on the same stars; ratio: the other's over this model's"
        return "\n".join([title, *([self.note] if self.note else []), aligned([header, *rows])])

    def _rows(self) -> list[list[str]]:
        return [
            [with_unit(name), f"{one['n']:,}",
             *(text for key in MEASURES for text in
               (f"{one[key]:.4g}", f"{one[f'{key}_beside']:.4g}",
                f"{one[f'{key}_ratio']:.3f} ± {one[f'{key}_ratio_error']:.3f}"))]
            for name, one in self.ratios.items()
        ]  # fmt: skip

    def section(self) -> Section:
        """The section of the report."""
        rows = self._rows()
        header = ["label", "N", "RMSE", "other's", "ratio", "robust", "other's", "ratio"]
        caption = f"This model and {self.title}; ratios are the other's over this one's, ± the "
        return Section(
            "beside",
            f"Beside {self.title}",
            [self.note] if self.note else [],
            [Table(caption + "bootstrap error over stars in pairs", header, rows)],
            [
                Picture(
                    "beside",
                    figures.side_by_side(tuple(self.ratios), self.columns),
                    "Two models against known labels",
                    f"Left, this model; right, {self.title}. Density of stars on a logarithmic "
                    "scale; the line is one to one. As figure A1 of Fallows & Sanders (2024).",
                )
            ],
        )


def compare_models(
    validation: Validation, other: Prediction, title: str, note: str = ""
) -> ModelComparison:
    """Another model's prediction of the N stars of a validation.

    Parameters
    ----------
    validation
        Of the model: which stars and known labels are compared.
    other
        The other model's, of the same N stars.
    title, note
        See :class:`ModelComparison`.

    Raises
    ------
    InputError
        If the models have no label in common.
    """
    names = check_common(validation.names, other.names, title)
    ratios, known, columns = {}, {}, {}
    for name in names:
        sample = validation.samples[name]
        said = other.values[sample.rows, other.names.index(name)]
        both = np.isfinite(said)
        if both.sum() < FEWEST_STARS:
            continue
        known[name] = sample.truth[both]
        columns[name] = sample.predicted[both], said[both]
        ours, theirs = (column - known[name] for column in columns[name])
        ratios[name] = _ratios(ours, theirs, validation.resamples, validation.seed)
    truth = _matrix(known)
    pairs = tuple(
        ("known", words, truth, _matrix({name: pair[k] for name, pair in columns.items()}))
        for k, words in enumerate(("this model", "other model"))
    )
    return ModelComparison(title, note, ratios, pairs)


def check_common(ours: Sequence[str], theirs: Sequence[str], title: str) -> list[str]:
    """Labels that two models have in common.

    Raises
    ------
    InputError
        If they have none.
    """
    names = [name for name in ours if name in theirs]
    if not names:
        raise InputError(
            f"{title} predicts none of {', '.join(ours)}",
            remedy="give a model with a label in common",
        )
    return names


def _ratios(ours: Array, theirs: Array, resamples: int, seed: int) -> dict[str, float]:
    """RMSE and robust scatter of two sets of residuals [n] of the same stars."""
    found: dict[str, float] = {"n": len(ours)}
    rows = np.random.default_rng(seed).integers(0, len(ours), (resamples, len(ours)))
    for key, measure in (("rmse", _rmse), ("robust", robust_scatter)):
        here, there = float(measure(ours)), float(measure(theirs))
        again = measure(theirs[rows]) / measure(ours[rows]) if resamples > 1 else np.full(2, np.nan)
        found |= {
            key: here, f"{key}_beside": there, f"{key}_ratio": there / here,
            f"{key}_ratio_error": float(np.std(again, ddof=1)),
        }  # fmt: skip
    return found


def _rmse(residuals: Array) -> Array:
    root: Array = np.sqrt((residuals**2).mean(axis=-1))
    return root


def _matrix(columns: Mapping[str, Array]) -> Array:
    """Columns of any lengths as [longest, K], filled up with NaN."""
    longest = max((len(column) for column in columns.values()), default=0)
    found = np.full((longest, len(columns)), np.nan)
    for k, column in enumerate(columns.values()):
        found[: len(column), k] = column
    return found
