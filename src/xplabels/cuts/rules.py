"""Named rules that a star must meet to be selected, written as ``gaia.ruwe <= 1.4``.

====================================================  ==========================================
``SURVEY.COLUMN < NUMBER`` (also <=, >, >=, ==, !=)   the number is known and compares so
``SURVEY.COLUMN lacks BIT, BIT``                      the bit mask is known and has none of these
``labels has all`` (or ``any``, or names)             these labels are known with their errors
``photometry has j_m, w1mpro``                        these magnitudes or parallaxes are known
====================================================  ==========================================

Rows with missing values fail, unless ``or missing`` is added at the end. Bits are given by name if
the survey names them, or by number.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.bounds import read_toml
from xplabels.core.errors import InputError, located
from xplabels.core.labels import Labels, check_names
from xplabels.core.stars import MEASUREMENTS, Photometry
from xplabels.surveys import survey_of

LACKS = "lacks"
RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    LACKS: lambda masks, bits: masks & np.int64(bits) == 0,
}
DEFAULT_RULES = Path(__file__).parents[1] / "data" / "selection_fs24.toml"

_COMPARISON = re.compile(r"([\w-]+)\.(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)")
_LACKS = re.compile(r"([\w-]+)\.(\w+)\s+lacks\s+(.+)")
_HAS = re.compile(r"(labels|photometry)\s+has\s+(.+)")
_NAME = re.compile(r"[A-Za-z]\w*")
SYNTAX = (
    "write 'SURVEY.COLUMN <= NUMBER', 'SURVEY.COLUMN lacks BIT, BIT', 'labels has all' or "
    "'photometry has NAME, NAME', each also with 'or missing'"
)


@dataclass(frozen=True)
class ColumnCondition:
    """A comparison of a survey's column with a bound, or with a mask of bits."""

    survey: str
    column: str
    relation: str
    bound: float
    missing_passes: bool = False

    def passes(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values [N] pass; NaN is missing, and so is a negative bit mask (int64)."""
        known = values >= 0 if values.dtype.kind == "i" else np.isfinite(values)
        return np.where(known, RELATIONS[self.relation](values, self.bound), self.missing_passes)


@dataclass(frozen=True)
class HasValues:
    """Labels or magnitudes that must be known."""

    what: str
    names: tuple[str, ...]

    def passes(self, known: Labels | Photometry) -> NDArray[np.bool_]:
        """Which stars [N] have them, with their errors."""
        present = np.isfinite(known.values) & np.isfinite(known.errors)
        if self.names == ("any",):
            return np.asarray(present.any(axis=1))
        if self.names == ("all",):
            return np.asarray(present.all(axis=1))
        columns = known.names if isinstance(known, Labels) else MEASUREMENTS
        if not {*self.names} <= {*columns}:  # a label that no table has is known for no star
            return np.zeros(len(present), bool)
        return np.asarray(present[:, [columns.index(name) for name in self.names]].all(axis=1))


@dataclass(frozen=True)
class Rule:
    """One named condition."""

    name: str
    text: str
    condition: ColumnCondition | HasValues


def parse_rule(name: str, text: str) -> Rule:
    """A rule from its name and expression (see the module's text).

    Raises :class:`InputError` if the expression is of no known form, or names an unknown bit,
    label or magnitude.

    >>> parse_rule("ruwe", "gaia.ruwe <= 1.4").condition
    ColumnCondition(survey='gaia', column='ruwe', relation='<=', bound=1.4, missing_passes=False)
    >>> parse_rule("star", "apogee.starflag lacks LOW_SNR, 16").condition.bound == 2**4 + 2**16
    True
    """
    where = f"rule {name!r}"
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a name for a rule", remedy="use letters, digits and underscores"
        )
    words = " ".join(text.split())
    body = words.removesuffix(" or missing")
    missing = body != words
    condition: ColumnCondition | HasValues
    if match := _COMPARISON.fullmatch(body):
        survey, column, relation, number = match.groups()
        try:
            bound = float(number)
        except ValueError:
            raise InputError(f"{number!r} is not a number", where=where, remedy=SYNTAX) from None
        if not np.isfinite(bound):
            raise InputError(f"the bound {number} is not finite", where=where, remedy=SYNTAX)
        condition = ColumnCondition(survey, column.lower(), relation, bound, missing)
    elif match := _LACKS.fullmatch(body):
        survey, column = match[1], match[2].lower()
        mask = sum({_bit(survey, column, bit.strip(), where) for bit in match[3].split(",")})
        condition = ColumnCondition(survey, column, LACKS, mask, missing)
    elif (match := _HAS.fullmatch(body)) and not missing:
        names = tuple(word.strip() for word in match[2].split(","))
        if names not in (("all",), ("any",)):
            if match[1] == "labels":
                with located(where):
                    names = check_names(names)
            elif unknown := [name for name in names if name not in MEASUREMENTS]:
                raise InputError(
                    f"photometry has no {unknown[0]!r}",
                    where=where,
                    remedy=f"choose among {', '.join(MEASUREMENTS)}",
                )
        condition = HasValues(match[1], names)
    else:
        raise InputError(f"{text!r} is not a rule", where=where, remedy=SYNTAX)
    return Rule(name, words, condition)


def _bit(survey: str, column: str, bit: str, where: str) -> int:
    if bit.isdecimal() and int(bit) < 63:
        return 1 << int(bit)
    names = survey_of(survey).masks.get(column)
    if names is not None and bit in names.__members__:
        return int(names[bit].value)
    known = f"a bit's number, or {', '.join(names.__members__)}" if names else "a bit's number"
    raise InputError(f"{survey}.{column} has no bit {bit!r}", where=where, remedy=f"give {known}")


def load_rules(
    path: str | Path | None = None, changes: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[Rule, ...]:
    """The rules of a TOML file with one table ``[rules]`` of ``NAME = "EXPRESSION"``, in order.

    Without ``path``, the cuts of Fallows & Sanders 2024 (:data:`DEFAULT_RULES`). A change,
    ``NAME=EXPRESSION``, replaces the rule of that name, or is added as the last; ``without`` names
    rules to leave out.
    """
    source = DEFAULT_RULES if path is None else Path(path)
    texts = dict(_read_toml(source))
    from_file = set(texts)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise InputError(
                f"{change!r} is not a rule", remedy="write --rule 'NAME=EXPRESSION', e.g. "
                "'ruwe=gaia.ruwe <= 1.2'"
            )  # fmt: skip
        texts[name.strip()] = text.strip()
        from_file.discard(name.strip())
    for name in without:
        if name not in texts:
            raise InputError(
                f"there is no rule {name!r} to leave out",
                remedy=f"choose among {', '.join(texts)}",
            )
        del texts[name]
    rules = []
    for name, text in texts.items():
        with located(source if name in from_file and path is not None else None):
            rules.append(parse_rule(name, text))
    return tuple(rules)


def _read_toml(path: Path) -> Mapping[str, str]:
    contents = read_toml(path)
    unknown = sorted(set(contents) - {"rules"})
    rules = contents.get("rules")
    if unknown or not isinstance(rules, dict):
        what = f"has an unknown key {unknown[0]!r}" if unknown else "has no table [rules]"
        raise InputError(what, where=path, remedy='write [rules] and NAME = "EXPRESSION" below it')
    for name, text in rules.items():
        if not isinstance(text, str):
            raise InputError("is not text", where=f"{path}, rule {name!r}", remedy=SYNTAX)
    return rules
