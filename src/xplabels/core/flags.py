"""The bits of the column ``flags``: what a user should know before trusting a label."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Why a star's labels deserve suspicion; 0 means that nothing was noticed.

    Bits 0-3 mean that there is no prediction (every label is NaN).
    """

    MISSING_BP = 1 << 0
    MISSING_RP = 1 << 1
    BAD_ROW = 1 << 2
    NO_PREDICTION = 1 << 3
    LOW_SNR = 1 << 4
    ZERO_NORMALISATION = 1 << 5
    MISSING_PHOTOMETRY = 1 << 6
    MISSING_PARALLAX = 1 << 7
    OUT_OF_DOMAIN = 1 << 8
    LABEL_OUT_OF_RANGE = 1 << 9
    VARIANCE_CLAMPED = 1 << 10
    NO_CORRELATIONS = 1 << 11
    LABEL_UNDEFINED = 1 << 12


MEANING: dict[Flag, str] = {
    Flag.MISSING_BP: "the archive has no BP spectrum: no prediction",
    Flag.MISSING_RP: "the archive has no RP spectrum: no prediction",
    Flag.BAD_ROW: "the row is damaged (read with --bad-rows flag): no prediction",
    Flag.NO_PREDICTION: "the network's inputs or outputs are not finite: no prediction",
    Flag.LOW_SNR: "RP coefficient 0 has S/N below 10: linear error propagation fails",
    Flag.ZERO_NORMALISATION: "RP coefficient 0 is zero: its error divides instead (FS24, eq. 1)",
    Flag.MISSING_PHOTOMETRY: "a colour the model takes is missing: inferred from the other inputs",
    Flag.MISSING_PARALLAX: "the parallax the model takes is missing: inferred from other inputs",
    Flag.OUT_OF_DOMAIN: "the inputs are unlike the training set (see domain_distance)",
    Flag.LABEL_OUT_OF_RANGE: "a predicted label lies outside the range trained on",
    Flag.VARIANCE_CLAMPED: "a variance reached its bound and was clamped",
    Flag.LABEL_UNDEFINED: "a label is null: the training set has it for no such stars",
    Flag.NO_CORRELATIONS: "coefficient correlations are absent: taken as zero or from a template",
}

UNUSABLE = Flag.MISSING_BP | Flag.MISSING_RP | Flag.BAD_ROW | Flag.NO_PREDICTION
"""Stars with any of these bits have NaN in every label."""

TABLE_WIDE = Flag.NO_CORRELATIONS
"""Says something of a whole table: it does not make a star "flagged" when scored."""
UNFLAGGED = (
    f"Unflagged stars have no flag but {TABLE_WIDE.name}, which tells of a whole table: nothing "
    "that the model takes was missing, the inputs are like those it was trained on, and no label "
    "lies outside their range. Stars without a prediction are in none of the tables."
)
"""What a report says of them."""


def describe() -> str:
    """One line per bit: value, name, meaning (for ``--help``, column descriptions and docs)."""
    return "\n".join(f"{flag.value:5d}  {flag.name}: {text}" for flag, text in MEANING.items())
