"""APOGEE DR17 allStar: calibrated ASPCAP labels, and its flags by name.

Bit numbers are those of the SDSS DR17 page "APOGEE Bitmasks" (sdss.org/dr17/irspec/
apogee-bitmasks); ASPCAPFLAG needs 64-bit integers. Missing numbers are NaN or -9999.99, and a
GAIAEDR3_SOURCE_ID of 0 or below means that there is no Gaia source; EDR3's identifiers are DR3's.
"""

from __future__ import annotations

from enum import IntFlag

from xplabels.core.labels import LABELS
from xplabels.surveys.table import label_survey


class AspcapFlag(IntFlag):
    """APOGEE_ASPCAPFLAG: the fit of the combined spectrum."""

    TEFF_WARN = 1 << 0
    LOGG_WARN = 1 << 1
    VMICRO_WARN = 1 << 2
    M_H_WARN = 1 << 3
    ALPHA_M_WARN = 1 << 4
    C_M_WARN = 1 << 5
    N_M_WARN = 1 << 6
    STAR_WARN = 1 << 7
    CHI2_WARN = 1 << 8
    COLORTE_WARN = 1 << 9
    ROTATION_WARN = 1 << 10
    SN_WARN = 1 << 11
    SPEC_HOLE_WARN = 1 << 12
    ATMOS_HOLE_WARN = 1 << 13
    VSINI_WARN = 1 << 14
    TEFF_BAD = 1 << 16
    LOGG_BAD = 1 << 17
    VMICRO_BAD = 1 << 18
    M_H_BAD = 1 << 19
    ALPHA_M_BAD = 1 << 20
    C_M_BAD = 1 << 21
    N_M_BAD = 1 << 22
    STAR_BAD = 1 << 23
    CHI2_BAD = 1 << 24
    COLORTE_BAD = 1 << 25
    ROTATION_BAD = 1 << 26
    SN_BAD = 1 << 27
    SPEC_HOLE_BAD = 1 << 28
    ATMOS_HOLE_BAD = 1 << 29
    VSINI_BAD = 1 << 30
    NO_ASPCAP_RESULT = 1 << 31
    MISSING_APSTAR = 1 << 32
    NO_GRID = 1 << 33
    BAD_FRAC_LOWSNR = 1 << 34
    BAD_FRAC_BADPIX = 1 << 35
    FERRE_FAIL = 1 << 36
    PROBLEM_TARGET = 1 << 40
    MULTIPLE_SUSPECT = 1 << 41


class StarFlag(IntFlag):
    """APOGEE_STARFLAG: the star and its visits."""

    BAD_PIXELS = 1 << 0
    COMMISSIONING = 1 << 1
    BRIGHT_NEIGHBOR = 1 << 2
    VERY_BRIGHT_NEIGHBOR = 1 << 3
    LOW_SNR = 1 << 4
    PERSIST_HIGH = 1 << 9
    PERSIST_MED = 1 << 10
    PERSIST_LOW = 1 << 11
    PERSIST_JUMP_POS = 1 << 12
    PERSIST_JUMP_NEG = 1 << 13
    SUSPECT_RV_COMBINATION = 1 << 16
    SUSPECT_BROAD_LINES = 1 << 17
    BAD_RV_COMBINATION = 1 << 18
    RV_REJECT = 1 << 19
    RV_SUSPECT = 1 << 20
    MULTIPLE_SUSPECT = 1 << 21
    RV_FAIL = 1 << 22
    SUSPECT_ROTATION = 1 << 23
    MTPFLUX_LT_75 = 1 << 24
    MTPFLUX_LT_50 = 1 << 25


class ExtraTarget(IntFlag):
    """EXTRATARG: why the star was observed; 0 is the main red-star sample."""

    NOT_MAIN = 1 << 0
    COMMISSIONING = 1 << 1
    TELLURIC = 1 << 2
    APO1M = 1 << 3
    DUPLICATE = 1 << 4


APOGEE = label_survey(
    "apogee",
    "APOGEE DR17 allStar",
    {name: (name, f"{name}_err") for name in LABELS},
    source_id=("source_id", "gaiaedr3_source_id", "gaiadr3_source_id", "gaia_source_id"),
    bits={"aspcapflag": AspcapFlag, "starflag": StarFlag, "extratarg": ExtraTarget},
    quality=("snr", "snrev"),
)
