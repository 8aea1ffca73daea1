"""The bits of the column ``flags``: what a user should know before trusting a label."""

from __future__ import annotations

from enum import IntFlag
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the command line imports this module, and should not wait for numpy
    import numpy as np
    from numpy.typing import NDArray


class Flag(IntFlag):
    """What was noticed about a star; 0 means that nothing was.

    Bits 0-3 mean that there is no prediction (every label is NaN).

    Examples
    --------
    >>> import numpy as np
    >>> flags = np.array([0, 64, 320])
    >>> (flags & Flag.OUT_OF_DOMAIN) != 0
    array([False, False,  True])
    >>> Flag(320).name
    'MISSING_PHOTOMETRY|OUT_OF_DOMAIN'
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
    POOR_FIT = 1 << 13
    HIGH_RUWE = 1 << 14
    BLENDED_TRANSITS = 1 << 15
    BAD_EXCESS_FACTOR = 1 << 16
    MISSING_BP_RP = 1 << 17
    MISSING_J_H = 1 << 18
    MISSING_W1_W2 = 1 << 19
    MISSING_H_W2 = 1 << 20
    MISSING_M_PSEUDO = 1 << 21
    MISSING_G_RP = 1 << 22
    MISSING_G_J = 1 << 23
    MISSING_RP_J = 1 << 24
    MISSING_RP_KS = 1 << 25
    MISSING_H_KS = 1 << 26
    OTHER_BASIS = 1 << 27


class About(NamedTuple):
    """What a flag says, what to do about it, and whether it makes a star not good."""

    meaning: str
    advice: str
    bad: bool


_DOWNLOAD = "nothing: without both spectra there is no prediction"
_PHOTOMETRY = "nothing, the errors allow for it; or give the magnitudes with --photometry"


def _colour(colour: str) -> About:
    return About(f"{colour} is missing: inferred from the other inputs", _PHOTOMETRY, False)


ABOUT: dict[Flag, About] = {
    Flag.MISSING_BP: About("the archive has no BP spectrum: no prediction", _DOWNLOAD, True),
    Flag.MISSING_RP: About("the archive has no RP spectrum: no prediction", _DOWNLOAD, True),
    Flag.BAD_ROW: About(
        "the row is damaged (read with --bad-rows flag): no prediction",
        "download the file again", True),
    Flag.NO_PREDICTION: About(
        "the network's inputs or outputs are not finite: no prediction",
        "look at the other flags of the star", True),
    Flag.LOW_SNR: About(
        "RP coefficient 0 has S/N below 10: linear error propagation fails",
        "use neither labels nor errors", True),
    Flag.ZERO_NORMALISATION: About(
        "RP coefficient 0 is zero: its error divides instead (FS24, eq. 1)",
        "use neither labels nor errors", True),
    Flag.MISSING_PHOTOMETRY: About(
        "a colour that the model uses is missing: inferred from the other inputs",
        _PHOTOMETRY, False),
    Flag.MISSING_PARALLAX: About(
        "the parallax that the model uses is missing: inferred from the other inputs",
        "nothing, the errors allow for it; or give the parallaxes with --photometry", False),
    Flag.OUT_OF_DOMAIN: About(
        "the inputs are unlike the training set (see domain_distance)",
        "do not use the labels: no training star resembles this one", True),
    Flag.LABEL_OUT_OF_RANGE: About(
        "a predicted label, or the 68.3 % interval of Teff, reaches beyond the range trained on",
        "do not use the labels: they are extrapolated", True),
    Flag.VARIANCE_CLAMPED: About(
        "a variance reached its bound and was clamped", "do not use the errors", True),
    Flag.NO_CORRELATIONS: About(
        "coefficient correlations are absent: typical ones, or a template, are used instead",
        "nothing; or give the archive's own files, which have them", False),
    Flag.LABEL_UNDEFINED: About(
        "hardly any training star of this kind has the label: "
        "it is null, the other labels are valid",
        "nothing: use the labels that are not null", False),
    Flag.POOR_FIT: About(
        "the spectrum is not what these labels predict (see fit_chisq, fit_p_value)",
        "do not use the labels: the source is not an ordinary single star, "
        "or its spectrum is contaminated", True),
    Flag.HIGH_RUWE: About(
        "RUWE above 1.4: the astrometry is not that of a single star (Lindegren 2018)",
        "use the labels; do not trust the parallax, and consider an unresolved companion", False),
    Flag.BLENDED_TRANSITS: About(
        "most BP and RP transits contain another source as well, possibly a faint one",
        "check the neighbours: one of nearly the same brightness makes the labels wrong", False),
    Flag.BAD_EXCESS_FACTOR: About(
        "BP + RP and G disagree: C* is off by more than 5 sigma (Riello et al. 2021)",
        "check the star: BP or RP may contain light from other sources", False),
    Flag.MISSING_BP_RP: _colour("the colour BP - RP"),
    Flag.MISSING_J_H: _colour("the colour J - H"),
    Flag.MISSING_W1_W2: _colour("the colour W1 - W2"),
    Flag.MISSING_H_W2: _colour("the colour H - W2"),
    Flag.MISSING_M_PSEUDO: _colour("the pseudo-absolute magnitude"),
    Flag.MISSING_G_RP: _colour("the colour G - RP"),
    Flag.MISSING_G_J: _colour("the colour G - J"),
    Flag.MISSING_RP_J: _colour("the colour RP - J"),
    Flag.MISSING_RP_KS: _colour("the colour RP - Ks"),
    Flag.MISSING_H_KS: _colour("the colour H - Ks"),
    Flag.OTHER_BASIS: About(
        "the spectrum is in another basis, "
        "or from another data release, than the model's training spectra",
        "compare stars that are in both before you trust small differences", False),
}  # fmt: skip

MEANING: dict[Flag, str] = {flag: about.meaning for flag, about in ABOUT.items()}

COLOURS = tuple(flag for flag in Flag if Flag.MISSING_BP_RP <= flag <= Flag.MISSING_H_KS)
"""Bits of the single inputs behind ``MISSING_PHOTOMETRY``."""
UNUSABLE = Flag.MISSING_BP | Flag.MISSING_RP | Flag.BAD_ROW | Flag.NO_PREDICTION
"""Stars with any of these bits have NaN in every label."""
BAD = reduce(or_, (flag for flag, about in ABOUT.items() if about.bad))
"""The bits that make a star not good."""

GOOD = "has a prediction and no flag that casts doubt on it"
"""The rule of ``good``, in words; the other flags are remarks."""


def is_good(flags: NDArray[np.unsignedinteger] | NDArray[np.signedinteger]) -> NDArray[np.bool_]:
    """Which stars [N] are good by their ``flags`` [N]: those with no bit of :data:`BAD`.

    Examples
    --------
    >>> import numpy as np
    >>> is_good(np.array([0, Flag.MISSING_J_H | Flag.MISSING_PHOTOMETRY, Flag.OUT_OF_DOMAIN]))
    array([ True,  True, False])
    """
    good: NDArray[np.bool_] = (flags & int(BAD)) == 0
    return good


def missing_input(name: str) -> Flag:
    """The flag of an auxiliary input, ``bp_rp`` for one, that is missing.

    >>> missing_input("rp_ks").name
    'MISSING_RP_KS'
    """
    return Flag[f"MISSING_{name.upper()}"]


def describe() -> str:
    """One line per bit: value, name, meaning (for ``--help``, column descriptions and docs).

    Bits that make a star not good end in "[not good]".
    """
    return "\n".join(
        f"{flag.value:9d}  {flag.name}: {one.meaning}{' [not good]' if one.bad else ''}"
        for flag, one in ABOUT.items()
    )
