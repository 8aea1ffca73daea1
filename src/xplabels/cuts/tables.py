"""What to select from: tables of surveys and files of spectra, read as far as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars, with_widths
from xplabels.cuts.rules import BitsSet, BitsUnset, Rule
from xplabels.surveys import PHOTOMETRIC, SURVEYS, read_survey
from xplabels.surveys.merging import Keyed, stack
from xplabels.surveys.table import SurveyTable

if TYPE_CHECKING:
    from xplabels.io import BadRows


@dataclass(frozen=True)
class Request:
    """What to select from, and how.

    Attributes
    ----------
    spectra
        Files of XP spectra.
    tables
        Survey and file; a survey may have several files. Names that are no
        :data:`~xplabels.surveys.SURVEYS` are tables of labels of the user's own. The order of
        those with labels is their precedence.
    neighbours
        Survey -> table that relates its identifiers to Gaia's.
    rules
        In the order in which they are applied.
    labels
        Labels to keep; None: all.
    offsets
        Whether to put several surveys on one scale.
    bad_rows
        See :func:`xplabels.io.read_blocks`.
    """

    spectra: tuple[Path, ...]
    tables: tuple[tuple[str, Path], ...] = ()
    neighbours: Mapping[str, Path] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    labels: tuple[str, ...] | None = None
    offsets: bool = True
    bad_rows: BadRows = "error"


def read_tables(request: Request) -> tuple[list[SurveyTable], dict[str, Keyed]]:
    """Tables of labels, in their order of precedence, and tables of photometry by survey."""
    wanted_columns, masks = _asked_for(request)
    labelled: dict[str, list[SurveyTable]] = {}
    light: dict[str, list[SurveyTable]] = {}
    for name in request.neighbours:
        if name not in dict(request.tables):
            raise InputError(f"neighbours of {name!r}, of which no table is given")

    def read(name: str, path: Path) -> SurveyTable:
        return read_survey(
            name, path, wanted_columns.get(name, ()), request.neighbours.get(name),
            masks.get(name, ()),
        )  # fmt: skip

    for name, path in request.tables:
        if name not in PHOTOMETRIC:
            labelled.setdefault(name, []).append(_with_labels(read(name, path), request.labels))
    wanted = None
    if labelled:
        ids = [table.source_id for tables in labelled.values() for table in tables]
        wanted = np.unique(np.concatenate(ids))
    for name, path in request.tables:
        if name in PHOTOMETRIC:
            table = read(name, path)
            # bulk files of gaia_source are many and large: only what may be needed stays
            if wanted is not None:
                table = table.take(np.flatnonzero(np.isin(table.source_id, wanted)))
            light.setdefault(name, []).append(table)
    return (
        [stack(tables) for tables in labelled.values()],
        {name: Keyed(stack(tables)) for name, tables in light.items()},
    )


def _asked_for(request: Request) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Columns that rules ask for, and those of them that are bit masks, by survey."""
    columns: dict[str, set[str]] = {}
    masks: dict[str, set[str]] = {}
    given = {name for name, _ in request.tables}
    for rule in request.rules:
        if isinstance(rule.condition, BitsSet):
            continue
        survey = rule.condition.survey
        if survey not in given and survey not in SURVEYS:
            raise InputError(
                f"asks for {survey!r}, of which no table is given",
                where=f"rule {rule.name!r}",
                remedy=f"give --table {survey}=FILE, or one of {', '.join(SURVEYS)}",
            )
        columns.setdefault(survey, set()).add(rule.condition.column)
        if isinstance(rule.condition, BitsUnset):
            masks.setdefault(survey, set()).add(rule.condition.column)
    return columns, masks


def _with_labels(table: SurveyTable, names: tuple[str, ...] | None) -> SurveyTable:
    """Only the labels wanted, as far as the survey has them."""
    if names is None or table.labels is None:
        return table
    here = [name for name in names if name in table.labels.names]
    if not here:
        raise InputError(
            f"has none of the labels {', '.join(names)}",
            where=table.where,
            remedy=f"it has {', '.join(table.labels.names)}",
        )
    return replace(table, labels=table.labels.select(here))


def read_spectra(request: Request) -> Iterator[Stars]:
    """Blocks of all files, a band that a block lacks as wide as elsewhere."""
    from xplabels import io as archive

    opened = [archive.read_blocks(path, request.bad_rows) for path in request.spectra]
    widths = (0, 0)
    for blocks in opened:
        for block in blocks:
            if isinstance(block.spectra, CoefficientSpectra):
                here = block.spectra.widths
                widths = (widths[0] or here[0], widths[1] or here[1])
                yield with_widths(block, widths)
            else:
                yield block


def gathered(blocks: Iterator[Stars]) -> Iterator[Stars]:
    """Blocks stacked until they are worth a row group."""
    from xplabels.core.stars import concatenate
    from xplabels.io.parquet import ROW_GROUP

    waiting: list[Stars] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield concatenate(waiting)
            waiting = []
    if waiting:
        yield concatenate(waiting)
