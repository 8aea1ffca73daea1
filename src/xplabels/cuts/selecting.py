"""Make the star table that ``xplabels train`` reads, from tables of surveys and files of spectra.

Rows come from the tables of labels or, if none is given, from the files of spectra. Every row is
accounted for: without a Gaia source, cut by a rule, a repeat, merged with another survey's row,
without a spectrum, or in the star table.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels import __version__
from xplabels.core.errors import InputError
from xplabels.core.flags import UNUSABLE
from xplabels.core.lookup import Lookup
from xplabels.core.stars import (
    MEASUREMENTS,
    CoefficientSpectra,
    Photometry,
    Stars,
    check_unique,
    concatenate,
    with_widths,
)
from xplabels.cuts.flow import Cut, CutFlow, Result, count
from xplabels.cuts.rules import LACKS, HasValues, Rule, load_rules
from xplabels.io.atomic import alone, check_distinct, check_output, check_parquet, whole_file
from xplabels.surveys import PHOTOMETRIC, SURVEYS, read_survey
from xplabels.surveys.merging import in_common_units, merged_labels, merged_photometry, stack
from xplabels.surveys.offsets import Offset, fit_offsets, subtract
from xplabels.surveys.table import SurveyTable

if TYPE_CHECKING:
    from xplabels.io import BadRows

logger = logging.getLogger(__name__)

REPORT_FORMAT = 1
PAPER: dict[str, tuple[int, str]] = {
    "training stars": (
        3_845_370,
        "as printed in section 2.3; more than APOGEE has stars, 384,537 would fit",
    ),
    "with [Fe/H] < -1": (19_288, "section 2.3"),
    "with [Fe/H] > 0.5": (118, "section 2.3"),
}
"""What Fallows & Sanders 2024 report of their training sample."""


@dataclass(frozen=True)
class SelectOptions:
    """What to select from, and how."""

    spectra: tuple[Path, ...]  # files of XP spectra
    tables: tuple[tuple[str, Path], ...] = ()
    """Pairs of survey and file; a survey may have several files. A name that is not in
    :data:`~xplabels.surveys.SURVEYS` stands for a table of labels of the user's own. Tables of
    labels are in order of precedence."""
    neighbours: Mapping[str, Path] = field(default_factory=dict)
    """Survey -> table that relates its identifiers to Gaia's."""
    rules: tuple[Rule, ...] = ()  # in the order in which they are applied
    labels: tuple[str, ...] | None = None  # those to keep; None: all
    offsets: bool = True  # whether to put several surveys on one scale
    bad_rows: BadRows = "error"


@alone
def select_stars(
    options: SelectOptions, output: Path, *, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Write the selected stars as a star table, and the cut flow as JSON and figure next to it.

    The table is written last, so a report without its table is that of a killed run, and is
    replaced. Returns what the JSON holds, and logs its main points. Raises :class:`InputError` if
    an output exists, a table or file is wrong, a rule's column is absent, or no star is left.
    """
    numbers, picture = output.with_suffix(".cuts.json"), output.with_suffix(".cuts.png")
    given = [*options.spectra, *(path for _, path in options.tables)]
    given += options.neighbours.values()
    check_distinct([output, numbers, picture], given)
    check_parquet(output, overwrite)
    overwrite |= not output.exists()
    for path in (numbers, picture):
        check_output(path, overwrite)
    from xplabels.io import write_star_blocks

    selection = _Selection(options)
    with whole_file(output, overwrite) as table_file:
        # with a column for every measurement, as later blocks may have some that the first lacks
        write_star_blocks(_gathered(selection.blocks()), table_file, measurements=MEASUREMENTS)
        report = selection.report(command)
        with whole_file(numbers, overwrite) as json_file:
            json_file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        with whole_file(picture, overwrite) as png_file:
            selection.flow.figure().savefig(png_file, format="png", dpi=150)
    logger.info("%s\n", selection.flow.to_text())
    for offset in selection.offsets:
        logger.info("%s", offset.to_text())
    logger.info("spectra: %s", ", ".join(f"{n} {what}" for what, n in selection.spectra.items()))
    for row in report["beside_the_paper"]:
        logger.info(
            "%s: %s; in the paper %s (%s)",
            row["what"], f"{row['here']:,}", f"{row['paper']:,}", row["paper_note"],
        )  # fmt: skip
    for table in report["tables"]:
        for note in table["notes"]:
            logger.info("%s", note)
    return report


def read_tables(options: SelectOptions) -> tuple[list[SurveyTable], dict[str, SurveyTable]]:
    """Tables of labels, in their order of precedence, and tables of photometry by survey."""
    asked = _asked_for(options)
    for name in options.neighbours:
        if name not in dict(options.tables):
            raise InputError(
                f"neighbours of {name!r}, of which no table is given",
                remedy=f"add --table {name}=FILE",
            )
    for name, path in options.tables:
        if options.tables.count((name, path)) > 1:
            raise InputError("is given twice", where=path, remedy="give each table once")

    def read(photometric: bool) -> Iterator[SurveyTable]:
        for name, path in options.tables:
            if (name in PHOTOMETRIC) == photometric:
                masks = [column for column, is_mask in asked[name].items() if is_mask]
                rules = {
                    rule.condition.column: rule.name for rule in options.rules
                    if not isinstance(rule.condition, HasValues) and rule.condition.survey == name
                }  # fmt: skip
                yield read_survey(
                    name, path, rules, options.neighbours.get(name), masks,
                    options.labels or (),
                )  # fmt: skip

    labelled: dict[str, list[SurveyTable]] = defaultdict(list)
    photometric_tables: dict[str, list[SurveyTable]] = defaultdict(list)
    for table in read(photometric=False):
        labelled[table.survey].append(_with_labels(table, options.labels))
    wanted = [table.source_id for tables in labelled.values() for table in tables]
    for table in read(photometric=True):
        used = table.source_id > 0
        # bulk files of gaia_source are many and large: only rows of stars with labels are kept
        if wanted:
            used &= np.isin(table.source_id, np.concatenate(wanted))
        photometric_tables[table.survey].append(table.take(np.flatnonzero(used)))
    return (
        [stack(in_common_units(tables)) for tables in labelled.values()],
        {name: stack(tables) for name, tables in photometric_tables.items()},
    )


def _asked_for(options: SelectOptions) -> Mapping[str, dict[str, bool]]:
    """Survey -> column that a rule uses -> whether it is a bit mask."""
    asked: dict[str, dict[str, bool]] = defaultdict(dict)
    for rule in options.rules:
        if isinstance(rule.condition, HasValues):
            continue
        survey, column = rule.condition.survey, rule.condition.column
        if survey not in SURVEYS and survey not in dict(options.tables):
            raise InputError(
                f"asks for {survey!r}, of which no table is given",
                where=f"rule {rule.name!r}",
                remedy=f"give --table {survey}=FILE, or one of {', '.join(SURVEYS)}",
            )
        asked[survey][column] = asked[survey].get(column) or rule.condition.relation == LACKS
    return asked


def _with_labels(table: SurveyTable, names: tuple[str, ...] | None) -> SurveyTable:
    """The table with only those of its labels that are wanted (None: all)."""
    if names is None or table.labels is None:
        return table
    present = [name for name in names if name in table.labels.names]
    if not present:
        raise InputError(
            f"has none of the labels {', '.join(names)}",
            where=table.where,
            remedy=f"it has {', '.join(table.labels.names)}",
        )
    return replace(table, labels=table.labels.select(present))


def apply_cuts(
    tables: Sequence[SurveyTable],
    light: Mapping[str, SurveyTable],
    rules: Sequence[Rule],
    own: Photometry | None = None,
) -> tuple[NDArray[np.bool_], CutFlow]:
    """Which of the rows [N] of all ``tables``, in order, every rule keeps, and the flow.

    The first cut is of rows without a Gaia source. Rows of the tables of photometry, ``light``, are
    found by source_id; ``own`` is photometry [N] of the rows themselves.
    """
    source_id = np.concatenate([table.source_id for table in tables])
    has_source: Result = (np.ones(len(source_id), bool), source_id > 0)
    results = [
        (rule.name, rule.text, _result(rule, tables, light, source_id, own)) for rule in rules
    ]
    return count(len(source_id), [("source", "the row has a Gaia source_id", has_source), *results])


def _result(
    rule: Rule,
    tables: Sequence[SurveyTable],
    light: Mapping[str, SurveyTable],
    source_id: NDArray[np.int64],
    own: Photometry | None,
) -> Result:
    condition = rule.condition
    if isinstance(condition, HasValues) and condition.what == "photometry":
        if not light and own is None:
            return None
        return source_id > 0, condition.passes(merged_photometry(source_id, light, own))
    if not isinstance(condition, HasValues) and condition.survey in light:
        values = light[condition.survey].column(condition.column, source_id)
        return source_id > 0, condition.passes(values)
    applies = np.zeros(len(source_id), bool)
    passes = np.ones(len(source_id), bool)
    for table, rows in _by_table(np.arange(len(source_id)), tables):
        known: Any = None
        if isinstance(condition, HasValues):
            known = table.labels
        elif table.survey == condition.survey:
            known = table.columns[condition.column]
        if known is not None:
            applies[rows], passes[rows] = True, condition.passes(known)
    return (applies, passes) if applies.any() else None


def _by_table(
    values: NDArray[Any], tables: Sequence[SurveyTable]
) -> Iterator[tuple[SurveyTable, NDArray[Any]]]:
    """Each table with its part of ``values``, which are those of all tables' rows in order."""
    ends = np.cumsum([len(table) for table in tables])
    return zip(tables, np.split(values, ends[:-1]), strict=True)


class _Selection:
    """A selection in progress: rows kept so far, counts of the others, and of spectra."""

    def __init__(self, options: SelectOptions) -> None:
        self.options = options
        self.tables, self.light = read_tables(options)
        self.flow = CutFlow(0, ())
        self.offsets: list[Offset] = []
        self.labels_from: dict[str, dict[str, int]] = {}
        self.spectra: dict[str, int] = {}
        self.known: Counter[str] = Counter()
        self.metallicity: Counter[str] = Counter()
        surveys = (*self.tables, *self.light.values())
        self._notes = tuple(note for table in surveys for note in table.notes)
        if self.tables:
            self._select_rows()

    def _select_rows(self) -> None:
        """Choose one row per star from the tables of labels, and put labels on one scale."""
        keep, flow = apply_cuts(self.tables, self.light, self.options.rules)
        alone = applies = repeats = 0
        kept = []
        for table, keep_of_table in _by_table(keep, self.tables):
            kept.append(table.best(keep_of_table))
            ids = table.source_id[table.source_id > 0]
            applies += len(ids)
            alone += len(ids) - len(np.unique(ids))
            repeats += int(keep_of_table.sum()) - len(kept[-1])
        text = "one row per star and survey: that of highest S/N (the first of equals)"
        flow = flow.followed_by(Cut("repeats", text, applies, alone, repeats))
        kept = in_common_units(kept)
        self.offsets = fit_offsets(kept) if self.options.offsets else []
        self._notes += tuple(offset.to_text() for offset in self.offsets)
        self._source_id, self._labels, self.labels_from = merged_labels(
            [subtract(table, self.offsets) for table in kept]
        )
        self._lookup = Lookup(self._source_id)
        if len(kept) > 1:
            rows = sum(map(len, kept))
            merged = rows - len(self._source_id)
            text = "rows of several surveys for one star become one"
            flow = flow.followed_by(Cut("merged", text, rows, merged, merged))
        self.flow = flow

    def blocks(self) -> Iterator[Stars]:
        """The selected stars with their spectra; the counts are complete after the last block."""
        ids, usable = [], []
        for block in _read_spectra(self.options):
            good = (block.flags & np.uint32(UNUSABLE)) == 0
            ids.append(block.source_id)
            usable.append(good)
            stars = self._of_tables(block, good) if self.tables else self._of_block(block, good)
            if not len(stars):
                continue
            light = merged_photometry(stars.source_id, self.light, stars.photometry)
            stars = replace(stars, photometry=light, notes=(*stars.notes, *self._notes))
            self._count_known(stars)
            yield stars
        self._account(np.concatenate(ids), np.concatenate(usable))

    def _of_tables(self, block: Stars, good: NDArray[np.bool_]) -> Stars:
        """The selected stars of a block that have a good spectrum, with their labels."""
        stars, rows = self._lookup.find(block.source_id)
        is_good = good[stars]
        return replace(
            block[stars[is_good]],
            labels=self._labels[rows[is_good]],
            origin=", ".join(f"{table.survey}: {table.where}" for table in self.tables),
        )

    def _of_block(self, block: Stars, good: NDArray[np.bool_]) -> Stars:
        """The stars of a block that the rules keep, if rows come from the files of spectra."""
        labels = block.labels
        if labels is not None and self.options.labels is not None:
            labels = labels.select(self.options.labels)
        table = SurveyTable("stars", str(block.where), block.source_id, labels=labels)
        keep, flow = apply_cuts([table], self.light, self.options.rules, block.photometry)
        if labels is not None:
            text, alone = "a BP and an RP spectrum, undamaged", int((~good).sum())
            removed = int((keep & ~good).sum())
            flow = flow.followed_by(Cut("spectrum", text, len(keep), alone, removed))
            keep &= good
        self.flow = self.flow + flow if self.flow.cuts else flow
        return block.with_labels(labels)[np.flatnonzero(keep)]

    def _count_known(self, stars: Stars) -> None:
        columns = dict(zip(MEASUREMENTS, stars.photometry.values.T, strict=True))
        if stars.labels is not None:
            columns |= dict(zip(stars.labels.names, stars.labels.values.T, strict=True))
        self.known.update({n: int(np.isfinite(values).sum()) for n, values in columns.items()})
        fe_h = columns.get("fe_h", np.empty(0))
        self.metallicity["with [Fe/H] < -1"] += int((fe_h < -1).sum())
        self.metallicity["with [Fe/H] > 0.5"] += int((fe_h > 0.5).sum())

    def _account(self, ids: NDArray[np.int64], usable: NDArray[np.bool_]) -> None:
        check_unique(ids, "files of spectra")
        self.spectra = {"given": len(ids), "without BP or RP, or damaged": int((~usable).sum())}
        if self.tables:
            rows = np.concatenate([table.source_id for table in self.tables])
            good = ids[usable]
            cut = Cut(
                "spectrum",
                "a BP and an RP spectrum in the files given",
                int((rows > 0).sum()),
                int(((rows > 0) & ~np.isin(rows, good)).sum()),
                int((~np.isin(self._source_id, good)).sum()),
            )
            self.flow = self.flow.followed_by(cut)
            asked_for = int(np.isin(good, rows).sum())
            self.spectra |= {
                "in the table": self.flow.after,
                "of rows that were cut": asked_for - self.flow.after,
                "of no row": len(good) - asked_for,
            }
        else:
            self.spectra["in the table"] = self.flow.after
        if self.flow.after == 0:
            steps = "; ".join(f"{c.name} removed {c.removed}" for c in self.flow.cuts if c.removed)
            raise InputError(
                f"no star is left of {self.flow.before} rows: {steps}",
                remedy="leave a rule out (--without NAME), or check that the tables match",
            )

    def report(self, command: str) -> dict[str, Any]:
        """Everything about the selection, for JSON."""
        counts: dict[str, int] = {}
        if [t.survey for t in self.tables] == ["apogee"] and self.options.rules == load_rules():
            counts = {"training stars": self.flow.after} | self.metallicity
        return {
            "format": REPORT_FORMAT,
            "version": __version__,
            "command": command,
            "spectra": {"files": [str(path) for path in self.options.spectra]} | self.spectra,
            "tables": [
                {"survey": t.survey, "file": t.where, "rows": len(t), "notes": list(t.notes)}
                for t in (*self.tables, *self.light.values())
            ],
            "rules": {rule.name: rule.text for rule in self.options.rules},
            "flow": self.flow.to_dict(),
            "known": self.known,
            "labels_from": self.labels_from,
            "offsets": [
                # JSON has no NaN: null
                {key: None if value != value else value for key, value in asdict(offset).items()}
                for offset in self.offsets
            ],
            "beside_the_paper": [
                {"what": what, "here": here, "paper": PAPER[what][0], "paper_note": PAPER[what][1]}
                for what, here in counts.items()
            ],
        }


def _read_spectra(options: SelectOptions) -> Iterator[Stars]:
    """The blocks of all files; a band that a block lacks gets the width that it has in others."""
    from xplabels.io import read_blocks

    widths = (0, 0)
    # every file is opened before the first is read
    for blocks in [read_blocks(path, options.bad_rows) for path in options.spectra]:
        for block in blocks:
            if isinstance(block.spectra, CoefficientSpectra):
                block_widths = block.spectra.widths
                widths = (widths[0] or block_widths[0], widths[1] or block_widths[1])
            yield with_widths(block, widths)


def _gathered(blocks: Iterator[Stars]) -> Iterator[Stars]:
    """Blocks joined until they fill a row group."""
    from xplabels.io.parquet import ROW_GROUP

    waiting: list[Stars] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield concatenate(waiting)
            waiting = []
    if waiting:
        yield concatenate(waiting)
