"""The section of a report on what the model looks at: FS24's figures 8 and 11-14."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS
from xplabels.core.stars import Stars
from xplabels.explain import figures
from xplabels.explain.attention import attention
from xplabels.explain.differences import SIDES, known_extinction
from xplabels.explain.explanation import Explanation, attention_metrics, label_curves
from xplabels.giants.emulator import Emulator, load_emulator
from xplabels.model import Model
from xplabels.report.sections import Picture, Section, Table

ATTENTION_STARS = 4000
"""Attention is over so many of the stars compared, evenly taken from them, where there are more."""
ATTENTION_TEXT = (
    "Standard deviation over stars of J_ij x_i, what each input contributes to a label (eq. 13). "
    "BP is blue, RP orange, other inputs green. As figure 8 of Fallows & Sanders (2024)."
)
CURVES_TEXT = (
    "Change of the normalised spectrum per unit of the label: as the network's derivatives tell, "
    "weighted by the full covariance of its inputs and by the paper's weights (eq. 14); as it is "
    "seen in the stars; and, where it says so, simulated. Bands: 68.3 % of bootstrap draws. "
    "As figures 11-14 of Fallows & Sanders (2024)."
)


@dataclass(frozen=True)
class Shown:
    """A section of the report and its entry in ``metrics.json``."""

    section: Section
    metrics: Mapping[str, Any]


def explain_section(model: Model, everyone: Stars, compared: Stars) -> Shown:
    """What the model looks at, as far as it can be said.

    Parameters
    ----------
    model
        Any model; curves need one of DR3 spectra, and GaiaXPy.
    everyone
        Stars with known labels, also those the model was trained on: curves are of the red clump
        among them, without dusty stars where dust is known.
    compared
        The stars of the report, over which the attention is taken.
    """
    step = max(1, -(-len(compared) // ATTENTION_STARS))
    try:
        seen = attention(model, compared[slice(None, None, step)])
    except InputError as error:
        return Shown(_section([f"Nothing can be said of it here: {error}."], [], []), {})
    text = [f"Attention is over {int(seen.count[0]):,} of the stars compared."]
    pictures = [
        Picture("attention", figures.attention_bars(seen), "Attention to each input",
                ATTENTION_TEXT)
    ]  # fmt: skip
    try:
        wavelength, shown, flow = label_curves(
            model, everyone, extinction=known_extinction(everyone), emulator=_emulator()
        )
    except InputError as error:
        text.append(f"No curves in wavelength: {error}.")
        return Shown(_section(text, pictures, []), {"attention": attention_metrics(seen)})
    found = Explanation(seen, wavelength, shown, flow)
    metrics = found.to_metrics()
    text.append(
        "Curves are of the red clump (table 5 of the paper) among all stars of the table, also "
        "those trained on, since they ask what the model does, not how well: "
        f"{'; '.join(flow)}."
    )
    pictures += [
        Picture(
            f"curves_{name}", figures.curves(name, wavelength, curves), LABELS[name].description,
            CURVES_TEXT,
        )
        for name, curves in shown.items()
    ]  # fmt: skip
    tables = [correlation_table(name, pairs) for name, pairs in metrics["correlations"].items()]
    kept = ("selection", "attention", "correlations")
    return Shown(_section(text, pictures, tables), {key: metrics[key] for key in kept})


def correlation_table(name: str, pairs: Mapping[str, Mapping[str, float]]) -> Table:
    """Correlations of each pair of a label's curves, on each side and both."""
    titles = [f"{side}, {low:g}-{high:g} nm" for side, (low, high) in SIDES.items()]
    return Table(
        f"Correlation of two curves of {LABELS[name].description}",
        ["", *titles, "both"],
        [[pair, *(f"{r[side]:.2f}" for side in (*SIDES, "both"))] for pair, r in pairs.items()],
        folded=True,
    )


def _section(text: Sequence[str], pictures: Sequence[Picture], tables: Sequence[Table]) -> Section:
    return Section("attention", "What the model looks at", text, tables, pictures)


def _emulator() -> Emulator | None:
    """Emulated giants for simulated differences, where their package is installed."""
    try:
        return load_emulator()
    except InputError:
        return None
