"""What the model uses of the spectra, in a validation: FS24's figures 8 and 11-14."""

from __future__ import annotations

from functools import partial

from xplabels.core.errors import InputError
from xplabels.core.labels import label_of
from xplabels.core.stars import Stars
from xplabels.explain import figures
from xplabels.explain.attention import attention
from xplabels.explain.differences import SIDES, known_extinction
from xplabels.explain.explanation import explain
from xplabels.giants.emulator import load_emulator
from xplabels.model import Model
from xplabels.validation.finding import Finding, Section

ATTENTION_STARS = 4000
"""Most stars over which attention is taken, an even sample of those compared."""
ATTENTION_TEXT = (
    "Standard deviation over stars of J_ij x_i, what each input contributes to a label (eq. 13). "
    "BP is blue, RP orange, other inputs green. As figure 8 of Fallows & Sanders (2024)."
)
CURVES_TEXT = (
    "Change of the normalised spectrum, in per cent of the flux: by the network's derivatives, "
    "weighted by the full covariance of its inputs and by the paper's weights (eq. 14); by the "
    "forward model, where there is one; as observed in the stars; and, where it says so, "
    "simulated. Bands: 68.3 % of bootstrap draws. As figures 11-14 of Fallows & Sanders (2024)."
)


def explain_finding(model: Model, everyone: Stars, compared: Stars) -> Finding:
    """What the model uses of the spectra, as far as it can be derived for them.

    The attention is over ``compared``, the stars of the report. Curves need a model of DR3 spectra
    and GaiaXPy; they are for the red clump among ``everyone``, the stars with known labels
    (including those trained on), without dusty stars if the dust is known.
    """
    section = Section("attention", "What the model looks at", folded=True)
    metrics: dict[str, object] = {}
    finding = Finding({"what it looks at": metrics}, section=section)
    step = max(1, -(-len(compared) // ATTENTION_STARS))
    try:
        seen = attention(model, compared[slice(None, None, step)])
    except InputError as error:
        section.paragraphs.append(f"Nothing can be said of it here: {error}.")
        return finding
    metrics["attention"] = seen.to_metrics()
    section.paragraphs.append(f"Attention is over {int(seen.count[0]):,} of the stars compared.")
    section.add_picture(
        "attention", "Attention to each input", ATTENTION_TEXT, lambda: figures.attention_bars(seen)
    )
    try:
        emulator = load_emulator()
    except InputError:  # its package is not installed
        emulator = None
    try:
        explanation = explain(
            model, everyone, a_g=known_extinction(everyone), emulator=emulator, seen=seen
        )
    except InputError as error:
        section.paragraphs.append(f"No curves in wavelength: {error}.")
        return finding
    numbers = explanation.to_metrics()
    metrics |= {key: numbers[key] for key in ("selection", "attention", "correlations")}
    section.paragraphs.append(
        "Curves are of the red clump (table 5 of the paper) among all stars of the table, also "
        "those trained on, since they ask what the model does, not how well: "
        f"{'; '.join(explanation.flow)}."
    )
    for name, curves in explanation.curves.items():
        title = label_of(name).description
        draw = partial(figures.curves, name, explanation.wavelength, curves, explanation.flux)
        caption = f"{explanation.sentence(name)} {CURVES_TEXT}"
        section.add_picture(f"curves_{name}", title, caption, draw)
    sides = [f"{side}, {low:g}-{high:g} nm" for side, (low, high) in SIDES.items()]
    for name, pairs in numbers["correlations"].items():
        section.add_table(
            f"Correlation of two curves of {label_of(name).description}",
            ["", *sides, "both"],
            [[pair, *(f"{r[side]:.2f}" for side in (*SIDES, "both"))] for pair, r in pairs.items()],
            folded=True,
        )
    return finding
