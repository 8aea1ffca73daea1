"""A model's card: what it is, what it was trained on and how well it does, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from typing import TYPE_CHECKING, Any

from xplabels.core.errors import counted
from xplabels.core.labels import label_of

if TYPE_CHECKING:
    from xplabels.model import Model

SCATTER = {
    "none": "not estimated",
    "dropout": "dropout of the network, by the delta method",
    "sampling": "dropout passes, median and scatter",
    "ensemble": "spread of an ensemble",
    "distilled": "spread of an ensemble of teachers, learnt by the network",
}


def write_card(model: Model, test: Mapping[str, Any] | None = None) -> str:
    """The card of ``model``; ``test`` holds the metrics of its test part, if they were taken."""
    metadata = model.metadata
    training, network = metadata["training"], model.networks[0].architecture
    features, recipe = model.feature_set, model.recipe
    likelihood = {
        "gaussian": "Gaussian", "student_t": f"Student t with {recipe.dof:g} degrees of freedom",
    }[recipe.likelihood]  # fmt: skip
    trained_on = "archive coefficients" if features.projection is None else "sampled spectra"
    ranges = [
        f"| {label.description} `{label}` | {label.unit} | {_plain(low)} | {_plain(high)} |"
        for label, (low, high) in zip(map(label_of, model.names), model.label_range, strict=True)
    ]
    lines = [
        f"# {metadata['name']}",
        "",
        f"Labels from Gaia XP spectra ({features.widths[0]} BP + {features.widths[1]} RP "
        f"coefficients), trained on {trained_on}.",
        "",
        "| label | unit | trained from | to |",
        "|---|---|---|---|",
        *ranges,
        "",
        f"- Training stars: {training['n_train']} ({training['origin'] or 'a user table'}); "
        f"{training['n_validation']} more for validation; split by hash of the source_id, "
        f"test fraction {metadata['split']['test_fraction']:g}.",
        f"- Further inputs, each of which may be missing: "
        f"{', '.join(features.auxiliary) or 'none'}.",
        f"- Network: {'-'.join(map(str, (*network.sizes, network.outputs)))}, "
        f"{network.activation}, {len(model.networks)} of them; "
        f"{network.flop_with_jacobian * len(model.networks) / 1e6:.1f} MFLOP a star with the "
        "Jacobian.",
        f"- Likelihood: {likelihood}. Model part of the error: {SCATTER[recipe.scatter]}.",
        f"- Errors {_recalibrated(model)}; factors (68.3 %) "
        f"{_numbers(model.calibration.factor)}, (95.4 %) {_numbers(model.calibration.factor_95)}.",
        *_further(model),
        f"- Recipe `{recipe.name}`, seed {metadata['seed']}, "
        f"xplabels {metadata['versions']['xplabels']}.",
        *(f"- {note}" for note in training["notes"]),
    ]
    lines += [f"- Left out: {reason}." for reason in metadata.get("left_out", ())]
    if flow := metadata.get("selection", {}).get("flow"):
        lines += ["", "## Selection of stars", "", *(f"- {line}" for line in flow)]
    if "validation" in metadata:
        lines += ["", "## Validation part (used for the calibration)", ""]
        lines += _table(model, metadata["validation"])
    if test is not None:
        lines += ["", "## Test part (never trained on)", "", *_table(model, test)]
    if "rates" in metadata:
        lines += ["", "## Other sources", "", metadata["rates"].strip()]
    return "\n".join(lines) + "\n"


def _recalibrated(model: Model) -> str:
    """Whether and on which stars the errors were recalibrated, in words."""
    recipe = model.recipe
    if not recipe.recalibrate:
        return "not recalibrated"
    if not recipe.calibration_folds:
        return "recalibrated on the validation part"
    return (
        "recalibrated on the validation part and on the training part, of which "
        f"{recipe.calibration_folds} further trainings each left out a fold"
    )


def _further(model: Model) -> list[str]:
    """Shrinkage, and what is particular about single labels, the flags, and wrong labels."""
    lines = []
    if model.unshrinking is not None:
        strengths = _numbers(model.unshrinking.strength)
        lines = [
            "- `--unshrunk` takes the shrinkage (regression to the mean) out of the labels, with "
            f"strengths {strengths} (1: labels and errors are Gaussian).",
            *(f"- **Mind:** {text}." for text in model.unshrinking.caveats(model.names)),
        ]
    if logarithmic := list(compress(model.names, model.scaling.logarithmic)):
        lines.append(f"- Learned as a logarithm: {', '.join(logarithmic)}.")
    counts = model.metadata["training"].get("n_per_label", ())
    lines += [
        f"- {name}: learned from the {count:,} training stars that have it, by a last layer of its "
        "own on all hidden layers of the network, which learned the other labels."
        for name, count in zip(model.names, counts, strict=False)
        if name not in model.common_names
    ]
    if model.support is not None:
        shares = zip(model.names, model.support.share, strict=True)
        rare = [name for name, share in shares if (share < model.support.least).any()]
        lines += [
            f"- {name}: null (`LABEL_UNDEFINED`) for kinds of stars of which the share that have "
            f"it in the training set is below {model.support.least:g} times that of all stars."
            for name in rare
        ]
    if model.forward is not None:
        lines.append(
            f"- Forward model: `POOR_FIT` below a p-value of {model.forward.threshold:.2g}, "
            f"`OUT_OF_DOMAIN` below {model.forward.distance_threshold:.2g}; together they flag "
            "one ordinary star in a hundred."
        )
    if audit := model.metadata.get("label_audit"):
        lines.append(
            f"- Audit: {audit['probably_wrong']:,} of {audit['judged']:,} stars have a label that "
            f"is probably wrong (`label_audit.csv`); wrong_labels = {model.recipe.wrong_labels}."
        )
    return lines


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _table(model: Model, metrics: Mapping[str, Any]) -> list[str]:
    """Scores as a Markdown table."""
    columns = ("n", "bias", "rmse", "robust", "robust_std_z", "std_z", "coverage_68", "coverage_95")
    rows = [
        f"| {name} | " + " | ".join(_cell(metrics["labels"][name][c]) for c in columns) + " |"
        for name in model.names
    ]
    if rightly := metrics.get("rightly_labelled"):
        rows += [
            f"| {name}, without labels that are probably wrong | "
            + " | ".join(_cell(rightly[name][c]) for c in columns) + " |"
            for name in model.names
        ]  # fmt: skip
    return [
        f"{counted(metrics['n'], 'star')}.",
        "",
        "| label | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *rows,
    ]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if float(value).is_integer() and value >= 1000 else _plain(value)


def _plain(value: float) -> str:
    """Four digits, and no exponent before a million."""
    return f"{float(f'{value:.4g}'):g}"
