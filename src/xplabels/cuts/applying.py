"""Rules and repeats, applied to the rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import best_rows
from xplabels.core.stars import Photometry
from xplabels.cuts.flow import Cut, CutFlow, count
from xplabels.cuts.rules import BitsSet, Rule
from xplabels.surveys.merging import Keyed, merged_photometry
from xplabels.surveys.table import SurveyTable


def apply_cuts(
    tables: Sequence[SurveyTable],
    keyed: Mapping[str, Keyed],
    rules: Sequence[Rule],
    own: Photometry | None = None,
) -> tuple[NDArray[np.bool_], CutFlow]:
    """Apply the rules to all rows of ``tables``, one table after the other.

    Returns
    -------
    keep, flow
        Rows [N] that every rule keeps, and the flow; its first cut is for rows that have no Gaia
        source.
    """
    source_id = np.concatenate([table.source_id for table in tables])
    real = source_id > 0
    every = np.ones(len(real), bool)
    verdicts: list[tuple[str, str, NDArray[np.bool_] | None, NDArray[np.bool_] | None]] = [
        ("source", "the row has a Gaia source_id", every, real)
    ]
    for rule in rules:
        verdicts.append((rule.name, rule.text, *_verdict(rule, tables, keyed, source_id, own)))
    return count(len(source_id), verdicts)


def _verdict(
    rule: Rule,
    tables: Sequence[SurveyTable],
    keyed: Mapping[str, Keyed],
    source_id: NDArray[np.int64],
    own: Photometry | None,
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Which rows [N] the rule applies to, and which pass; None where it does not apply at all."""
    condition = rule.condition
    if isinstance(condition, BitsSet) and condition.what == "photometry":
        if not keyed and own is None:
            return None, None
        light = merged_photometry(source_id, keyed, own)
        return source_id > 0, condition.passes(light)
    if not isinstance(condition, BitsSet) and condition.survey in keyed:
        values = keyed[condition.survey].column(condition.column, source_id)
        return source_id > 0, condition.passes(values)
    applies, passes = [], []
    for table in tables:
        if isinstance(condition, BitsSet):
            verdict = None if table.labels is None else condition.passes(table.labels)
        else:
            mine = table.survey == condition.survey
            verdict = condition.passes(table.columns[condition.column]) if mine else None
        applies.append(np.full(len(table), verdict is not None))
        passes.append(np.ones(len(table), bool) if verdict is None else verdict)
    together = np.concatenate(applies)
    return (together, np.concatenate(passes)) if together.any() else (None, None)


def without_repeats(
    tables: Sequence[SurveyTable], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Cut]:
    """Of each survey's rows [N] of one star among those kept, the one of highest S/N."""
    best = np.zeros(len(keep), bool)
    alone = applies = start = 0
    for table in tables:
        rows = slice(start, start + len(table))
        start += len(table)
        quality = np.full(len(table), np.nan) if table.quality is None else table.quality
        best[rows][best_rows(table.source_id, quality, keep[rows])] = True
        real = table.source_id[table.source_id > 0]
        applies += len(real)
        alone += len(real) - len(np.unique(real))
    removed = int((keep & ~best).sum())
    text = "one row a star and survey: that of highest S/N (the first of equals)"
    return best, Cut("repeats", text, applies, alone, removed)
