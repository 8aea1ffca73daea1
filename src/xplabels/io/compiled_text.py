"""Compiled: lines of a bulk file -> rows of dense arrays, at a few cycles a character.

Only text that is plainly right is taken: at anything else the parser stops and names the line,
and the line goes to :class:`xplabels.io.delimited.LineParser`, which knows every form and
every fault. So there is one place that judges damage, and this one need not.

Digits are read eight or sixteen at a time (all on little-endian machines): which bytes are digits,
how many come first, and their value are a few operations without a branch, where a loop over
characters would be mispredicted at almost every number. Decimal to binary is Clinger's
exact case (1990) where both parts are exact in float64, else the 128-bit product of Eisel and
Lemire (Lemire 2021, Softw. Pract. Exper. 51, 1700): correctly rounded, as Python's ``float`` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import inlined_jit, jit
from xplabels.io.compiled_words import (
    as_float,
    byte,
    leading_zeros,
    other_than_digits,
    sixteen_digits,
    trailing_zeros,
    upper_product,
    word,
)

PADDING = 64
"""Bytes after the text that must be there, whatever they hold: words are read beyond its end."""

SMALLEST_POWER, LARGEST_POWER = -325, 308
"""Powers of ten for which a float64 of at most 19 digits can be normal."""

U = np.uint64
QUOTE, COMMA, NEWLINE, RETURN, SPACE = (U(ord(sign)) for sign in '",\n\r ')
POINT, MINUS, PLUS, EXPONENT, ZERO, SQUARE, ROUND = (U(ord(sign)) for sign in ".-+e0[(")
LOWER_CASE = U(32)
NULL = U(int.from_bytes(b"null", "little"))
SKIPPED, SOURCE_ID = -1, 0
"""What a column is, beside 1 + its number among :data:`xplabels.io.rows.ARRAYS`."""


def _powers_of_five() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The leading 128 bits of 5^q, in two words; rounded up for q < 0, where they never end."""
    high, low = [], []
    for q in range(SMALLEST_POWER, LARGEST_POWER + 1):
        power = 5 ** abs(q)
        if q < 0:
            bits = power.bit_length()
            leading = (1 << (bits + 127)) // power + 1
        else:
            leading = (power << 128) >> power.bit_length()
        leading >>= leading.bit_length() - 128
        high.append(leading >> 64)
        low.append(leading & (2**64 - 1))
    return np.array(high, np.uint64), np.array(low, np.uint64)


FIVE_HIGH, FIVE_LOW = _powers_of_five()
TEN = 10.0 ** np.arange(23)
TEN_WHOLE = np.array([10**n for n in range(17)], np.uint64)


@inlined_jit
def _signed(word: Any) -> Any:
    return np.int64(word)


@inlined_jit
def _value(eight: Any) -> Any:
    """The number of eight digits 0 to 9, the first in the lowest byte."""
    eight = (eight * U(2561)) >> U(8)
    eight = ((eight & U(0x00FF00FF00FF00FF)) * U(6553601)) >> U(16)
    return ((eight & U(0x0000FFFF0000FFFF)) * U(42949672960001)) >> U(32)


@inlined_jit
def _digits(text: int, i: int) -> tuple[Any, Any]:
    """Number of digits, at most 8, that begin at ``i``, and their value."""
    eight = word(text, i) ^ U(0x3030303030303030)
    # a byte's highest bit is set where it is no digit; only the lowest such byte is looked at
    other = ((eight + U(0x7676767676767676)) | eight) & U(0x8080808080808080)
    count = trailing_zeros(other) >> U(3)
    # the digits move up, zeros come before them
    eight = U(0) if count == U(0) else eight << (U(64) - (count << U(3)))
    return count, _value(eight)


@jit
def _scaled(mantissa: Any, power: int) -> tuple[float, bool]:
    """mantissa 10^power, correctly rounded, and whether that is certain."""
    if mantissa <= U(1 << 53) and -22 <= power <= 22:
        exact = np.float64(mantissa)
        return (exact / TEN[-power] if power < 0 else exact * TEN[power]), True
    if mantissa == U(0):
        return 0.0, True
    if power < SMALLEST_POWER or power > LARGEST_POWER:
        return 0.0, False
    shift = leading_zeros(mantissa)
    whole = mantissa << shift
    high_five, low_five = (FIVE_HIGH[power - SMALLEST_POWER], FIVE_LOW[power - SMALLEST_POWER])
    upper, lower = upper_product(whole, high_five), whole * high_five
    if upper & U(0x1FF) == U(0x1FF):
        # what was left out of the power might carry into the bits that decide the rounding
        carry = upper_product(whole, low_five)
        lower += carry
        upper += U(1) if lower < carry else U(0)
        if lower == U(0xFFFFFFFFFFFFFFFF):
            return 0.0, False
    top = upper >> U(63)
    bits = upper >> (top + U(9))
    # floor(log2(10^power)) is (217706 power) >> 16 in this range
    exponent = ((217706 * power) >> 16) + 63 + _signed(top) - _signed(shift) + 1023
    if exponent <= 0:
        return 0.0, False
    half = bits & U(3) == U(1) and (bits << (top + U(9))) == upper
    if half and lower <= U(1) and -4 <= power <= 23:
        bits &= ~U(1)  # an exact half goes to the even neighbour
    bits = (bits + (bits & U(1))) >> U(1)
    if bits >= U(1 << 53):
        bits = U(1 << 52)
        exponent += 1
    if exponent >= 2047:
        return 0.0, False
    return as_float((bits & U((1 << 52) - 1)) | (U(exponent) << U(52))), True


@inlined_jit
def _common(text: int, i: int) -> tuple[float, int]:
    """As :func:`_number`, for one digit, a point and 1 to 13 digits, E and a digit maybe; else -1.

    Nearly all numbers are of this kind. Their end is known before their value, so that the
    processor has several in hand.
    """
    negative = byte(text, i) == MINUS
    other = other_than_digits(text, i) >> U(negative)
    i += negative
    end = trailing_zeros(other ^ U(2))
    if byte(text, i + 1) != POINT or end < U(3) or end >= U(16):
        return 0.0, -1
    places = end - U(2)
    upper, lower = sixteen_digits(text, i + 2, places)
    mantissa = (byte(text, i) - ZERO) * TEN_WHOLE[places]
    mantissa += _value(upper) * U(100_000_000) + _value(lower)
    power = -_signed(places)
    i += _signed(end)
    if byte(text, i) | LOWER_CASE == EXPONENT:
        down = byte(text, i + 1) == MINUS
        i += 1 + down
        digit = byte(text, i) - ZERO
        if digit > U(9) or byte(text, i + 1) - ZERO <= U(9):
            return 0.0, -1
        power += -_signed(digit) if down else _signed(digit)
        i += 1
    # both parts are exact in float64: the quotient is correctly rounded
    value = np.float64(mantissa)
    value = value / TEN[-power] if power < 0 else value * TEN[power]
    return (-value if negative else value), i


@jit
def _number(text: int, i: int) -> tuple[float, int]:
    """The number that begins at ``i``, and where it ends; -1 where this is not certain."""
    negative = byte(text, i) == MINUS
    i += negative
    first = i
    mantissa = byte(text, i) - ZERO
    if mantissa > U(9):
        return 0.0, -1
    i += 1
    digit = byte(text, i) - ZERO
    while digit <= U(9) and i - first < 19:
        mantissa = mantissa * U(10) + digit
        i += 1
        digit = byte(text, i) - ZERO
    places, zeros = 0, False
    leading = 0 if mantissa == U(0) else i - first
    if byte(text, i) == POINT:
        i += 1
        one, value = _digits(text, i)
        zeros = value < U(100_000)  # as in 0.00012345678: three digits or more do not count
        two, more = _digits(text, i + 8)
        two = two if one == U(8) else U(0)
        more = more if one == U(8) else U(0)
        mantissa = (mantissa * TEN_WHOLE[one] + value) * TEN_WHOLE[two] + more
        places = _signed(one + two)
        i += places
        if places == 16:
            three, last = _digits(text, i)
            mantissa = mantissa * TEN_WHOLE[three] + last
            places += _signed(three)
            i += _signed(three)
        if places == 0:
            return 0.0, -1
    if leading + places > 19 and not (leading == 0 and zeros and places <= 22):
        return 0.0, -1
    power = -places
    if byte(text, i) | LOWER_CASE == EXPONENT:
        i += 1
        down = byte(text, i) == MINUS
        i += down or byte(text, i) == PLUS
        digit = byte(text, i) - ZERO
        if digit > U(9):
            return 0.0, -1
        size = 0
        while digit <= U(9) and size < 1000:
            size = size * 10 + _signed(digit)
            i += 1
            digit = byte(text, i) - ZERO
        power += -size if down else size
    value, certain = _scaled(mantissa, power)
    return (-value if negative else value), (i if certain else -1)


@jit
def numbers(
    text: int,
    i: int,
    out: NDArray[np.floating],
    single: bool,
    above: float,
    upto: float,
) -> int:
    """The array that begins at ``i``, into ``out``; where it ends, or -1 if it is not plain.

    Each number is to lie in (above, upto]; ``single`` rounds it to float32 first.
    """
    opening = byte(text, i + 1)
    if byte(text, i) != QUOTE or (opening != SQUARE and opening != ROUND):
        return -1
    closing = opening + (
        U(2) if opening == SQUARE else U(1)
    )  # ] follows [ by two, ) follows ( by one
    i += 2
    for k in range(len(out)):
        if k:
            if byte(text, i) != COMMA:
                return -1
            i += 1
            while byte(text, i) == SPACE:
                i += 1
        value, end = _common(text, i)
        if end < 0:
            value, end = _number(text, i)
            if end < 0:
                return -1
        i = end
        if single:
            value = np.float64(np.float32(value))
        if not (value > above and value <= upto):
            return -1
        out[k] = value
    if byte(text, i) != closing or byte(text, i + 1) != QUOTE:
        return -1
    return i + 2


@jit
def _skip(text: int, i: int) -> int:
    """The end of a cell that is not wanted, or -1."""
    if byte(text, i) == QUOTE:
        i += 1
        while byte(text, i) != QUOTE:
            if byte(text, i) == NEWLINE or byte(text, i) == RETURN:
                return -1
            i += 1
        return i + 1
    while byte(text, i) != COMMA and byte(text, i) != NEWLINE:
        if byte(text, i) == QUOTE or byte(text, i) == RETURN:
            return -1
        i += 1
    return i


@jit
def _whole(text: int, i: int) -> tuple[int, int]:
    """The positive integer that begins at ``i`` and its end, or -1."""
    first = i
    value = U(0)
    digit = byte(text, i) - ZERO
    while digit <= U(9) and i - first < 19:
        value = value * U(10) + digit
        i += 1
        digit = byte(text, i) - ZERO
    if i == first or digit <= U(9) or value >= U(1 << 63):
        return 0, -1
    return _signed(value), i


@jit
def _null(text: int, i: int) -> int:
    """The end of an empty cell or of ``null``, or -1."""
    if byte(text, i) == COMMA or byte(text, i) == NEWLINE:
        return i
    if word(text, i) & U(0xFFFFFFFF) == NULL:
        return i + 4
    return -1


@jit
def rows(
    data: NDArray[np.uint8],
    start: int,
    limit: int,
    columns: NDArray[np.int64],
    row: int,
    source_id: NDArray[np.int64],
    bp: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    rp: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    lacking: NDArray[np.bool_],
) -> tuple[int, int, bool]:
    """Lines of ``data[start:limit]``, which ends in a newline, from the ``row``-th row on.

    Parameters
    ----------
    data
        Text and :data:`PADDING` bytes.
    columns
        What each column is: :data:`SKIPPED`, :data:`SOURCE_ID` or 1 + its number in ``ARRAYS``.
    source_id, bp, rp
        Filled; their length is the most rows there may be.
    lacking
        [N, 2], set where all three arrays of a band are null; these are not filled.

    Returns
    -------
    row, position, stopped
        The rows filled in all, where the next line begins, and whether that line is not plain.
    """
    i = start
    while i < limit and row < len(source_id):
        line = i
        i = _row(data.ctypes.data, i, columns, row, source_id, bp, rp, lacking)
        if i < 0:
            return row, line, True
        row += 1
    return row, i, False


@jit
def _row(
    text: int,
    i: int,
    columns: NDArray[np.int64],
    row: int,
    source_id: NDArray[np.int64],
    bp: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    rp: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    lacking: NDArray[np.bool_],
) -> int:
    """One line; where the next begins, or -1."""
    nulls_bp, nulls_rp = 0, 0
    for c in range(len(columns)):
        what = columns[c]
        if what == SKIPPED:
            i = _skip(text, i)
        elif what == SOURCE_ID:
            source_id[row], i = _whole(text, i)
        else:
            null = _null(text, i)
            if null >= 0:
                i = null
                nulls_bp += what <= 3
                nulls_rp += what > 3
            elif what <= 3:
                i = _array(text, i, what, bp, row)
            else:
                i = _array(text, i, what - 3, rp, row)
        if i < 0 or byte(text, i) != (NEWLINE if c == len(columns) - 1 else COMMA):
            return -1
        i += 1
    if (nulls_bp != 0 and nulls_bp != 3) or (nulls_rp != 0 and nulls_rp != 3):
        return -1
    lacking[row, 0], lacking[row, 1] = nulls_bp == 3, nulls_rp == 3
    return i


@jit
def _array(
    text: int,
    i: int,
    part: int,
    band: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    row: int,
) -> int:
    """Coefficients, errors or correlations of one band, as ``part`` is 1, 2 or 3."""
    coefficients, errors, correlations = band
    if part == 1:
        return numbers(text, i, coefficients[row], False, -np.inf, np.finfo(np.float64).max)
    if part == 2:
        return numbers(text, i, errors[row], True, 0.0, np.float64(np.finfo(np.float32).max))
    return numbers(text, i, correlations[row], True, -1.0000000001, 1.0)
