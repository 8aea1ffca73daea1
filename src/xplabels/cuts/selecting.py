"""Tables of surveys and files of spectra -> the star table that ``xplabels train`` reads.

Rows come from the tables of labels, or, where none is given, from the files of spectra. Every
one is accounted for: no Gaia source, cut by a rule, a repeat, merged with another survey's row,
without a spectrum, or in the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels import __version__
from xplabels.core.errors import InputError
from xplabels.core.flags import UNUSABLE
from xplabels.core.stars import MEASUREMENTS, Stars
from xplabels.cuts.accounts import Book, Known
from xplabels.cuts.applying import apply_cuts, without_repeats
from xplabels.cuts.flow import Cut, CutFlow, beside_the_paper
from xplabels.cuts.rules import load_rules
from xplabels.cuts.tables import Request, gathered, read_spectra, read_tables
from xplabels.io.atomic import check_output, whole_file
from xplabels.surveys.merging import Keyed, merged_labels, merged_photometry
from xplabels.surveys.offsets import Labelled, Offset, fit_offsets, subtract
from xplabels.surveys.table import SurveyTable

STARS = "stars"
"""The name under which the report calls rows that come from the files of spectra."""
REPORT_FORMAT = 1


@dataclass(frozen=True)
class Selected:
    """What a selection did.

    Attributes
    ----------
    flow
        Rows before, cuts, rows after (the stars written).
    offsets
        Between surveys, subtracted.
    report
        All of it, for JSON.
    """

    flow: CutFlow
    offsets: tuple[Offset, ...]
    report: dict[str, Any]

    def to_lines(self) -> list[str]:
        """What a user should see of it, for the terminal."""
        lines = [self.flow.to_text(), ""]
        lines.extend(offset.to_text() for offset in self.offsets)
        spectra = {k: v for k, v in self.report["spectra"].items() if k != "files"}
        lines.append("spectra: " + ", ".join(f"{count} {what}" for what, count in spectra.items()))
        for row in self.report["beside_the_paper"]:
            lines.append(
                f"{row['what']}: {row['here']:,}; in the paper {row['paper']:,} "
                f"({row['paper_note']})"
            )
        lines.extend(note for table in self.report["tables"] for note in table["notes"])
        return lines


def select_stars(
    request: Request, output: Path, *, overwrite: bool = False, command: str = ""
) -> Selected:
    """Write the selected stars as a star table, and the cut flow as JSON and figure beside it.

    Raises
    ------
    InputError
        If an output exists, a table or file is wrong, a rule asks for what is not there, or no
        star is left.
    """
    if output.suffix.lower() != ".parquet":
        raise InputError("a star table is Parquet", where=output, remedy="end its name in .parquet")
    numbers, picture = output.with_suffix(".cuts.json"), output.with_suffix(".cuts.png")
    for path in (output, numbers, picture):
        check_output(path, overwrite)
    from xplabels.io import write_star_blocks

    labelled, keyed = read_tables(request)
    work = _FromLabels(request, labelled, keyed) if labelled else _FromSpectra(request, keyed)
    with whole_file(numbers, overwrite) as json_file, whole_file(picture, overwrite) as png_file:
        # the first block may lack what later ones have: nine columns of nulls cost nothing
        write_star_blocks(gathered(work.blocks()), output, overwrite, MEASUREMENTS)
        selected = Selected(
            work.flow, tuple(work.offsets), _report(request, work, labelled, keyed, command)
        )
        json_file.write_text(json.dumps(selected.report, indent=2, allow_nan=False) + "\n")
        selected.flow.figure().savefig(png_file, format="png", dpi=150)
    return selected


class _FromLabels:
    """The selection where tables of labels say which rows there are."""

    def __init__(
        self, request: Request, tables: Sequence[SurveyTable], keyed: Mapping[str, Keyed]
    ) -> None:
        self._request, self._tables, self._keyed = request, tables, keyed
        keep, flow = apply_cuts(tables, keyed, request.rules)
        keep, repeats = without_repeats(tables, keep)
        kept, start = [], 0
        for table in tables:
            rows = np.flatnonzero(keep[start : start + len(table)])
            start += len(table)
            if table.labels is not None:
                kept.append(Labelled(table.survey, table.source_id[rows], table.labels[rows]))
        self.offsets: list[Offset] = fit_offsets(kept) if request.offsets else []
        self.source_id, self.labels, self.taken = merged_labels(
            [subtract(table, self.offsets) for table in kept]
        )
        flow = flow.followed_by(repeats)
        if len(tables) > 1:
            merged = int(keep.sum()) - len(self.source_id)
            text = "rows of several surveys for one star become one"
            flow = flow.followed_by(Cut("merged", text, int(keep.sum()), merged, merged))
        self.flow = flow
        self.spectra: dict[str, int] = {}
        self.known = Known()

    def blocks(self) -> Iterator[Stars]:
        """The stars with their spectra; complete once exhausted."""
        every = np.unique(np.concatenate([table.source_id for table in self._tables]))
        book = Book()
        notes = tuple(note for table in self._tables for note in table.notes)
        notes += tuple(note for keyed in self._keyed.values() for note in keyed.table.notes)
        notes += tuple(offset.to_text() for offset in self.offsets)
        for block in read_spectra(self._request):
            usable = (block.flags & np.uint32(UNUSABLE)) == 0
            book.add(block.source_id, usable)
            rows = np.flatnonzero(usable & np.isin(block.source_id, self.source_id))
            if not len(rows):
                continue
            stars = block[rows]
            found = np.searchsorted(self.source_id, stars.source_id)
            light = merged_photometry(stars.source_id, self._keyed, stars.photometry)
            self.known.add(light, self.labels[found])
            yield replace(
                stars,
                labels=self.labels[found],
                photometry=light,
                notes=(*stars.notes, *notes),
                origin=", ".join(f"{t.survey}: {t.where}" for t in self._tables),
            )
        self._account(book, every)

    def _account(self, book: Book, every: NDArray[np.int64]) -> None:
        ids, usable = book.all()
        good = ids[usable]
        with_spectrum = np.isin(self.source_id, good)
        rows = np.concatenate([table.source_id for table in self._tables])
        cut = Cut(
            "spectrum",
            "a BP and an RP spectrum in the files given",
            int((rows > 0).sum()),
            int(((rows > 0) & ~np.isin(rows, good)).sum()),
            int((~with_spectrum).sum()),
        )
        self.flow = self.flow.followed_by(cut)
        written = int(with_spectrum.sum())
        self.spectra = {
            "given": len(ids),
            "without BP or RP, or damaged": int((~usable).sum()),
            "in the table": written,
            "of rows that were cut": int(np.isin(good, every).sum()) - written,
            "of no row": int((~np.isin(good, every)).sum()),
        }
        _check_any(self.flow)


class _FromSpectra:
    """The selection where the files of spectra say which rows there are."""

    def __init__(self, request: Request, keyed: Mapping[str, Keyed]) -> None:
        self._request, self._keyed = request, keyed
        self.flow = CutFlow(0, ())
        self.offsets: list[Offset] = []
        self.taken: dict[str, dict[str, int]] = {}
        self.spectra: dict[str, int] = {}
        self.known = Known()

    def blocks(self) -> Iterator[Stars]:
        """The stars that the rules keep; complete once exhausted."""
        book, flow = Book(), None
        notes = tuple(note for keyed in self._keyed.values() for note in keyed.table.notes)
        for block in read_spectra(self._request):
            usable = (block.flags & np.uint32(UNUSABLE)) == 0
            book.add(block.source_id, usable)
            labels = block.labels
            if labels is not None and self._request.labels is not None:
                labels = labels.select(self._request.labels)
            table = SurveyTable(STARS, str(block.where), block.source_id, labels=labels)
            keep, here = apply_cuts([table], self._keyed, self._request.rules, block.photometry)
            if labels is not None:
                removed = int((keep & ~usable).sum())
                text = "a BP and an RP spectrum, undamaged"
                alone = int((~usable).sum())
                here = here.followed_by(Cut("spectrum", text, len(keep), alone, removed))
                keep &= usable
            flow = here if flow is None else flow + here
            stars = block.with_labels(labels)[np.flatnonzero(keep)]
            if len(stars):
                light = merged_photometry(stars.source_id, self._keyed, stars.photometry)
                self.known.add(light, stars.labels)
                yield replace(stars, photometry=light, notes=(*stars.notes, *notes))
        ids, usable = book.all()
        self.flow = CutFlow(0, ()) if flow is None else flow
        self.spectra = {
            "given": len(ids),
            "without BP or RP, or damaged": int((~usable).sum()),
            "in the table": self.flow.after,
        }
        _check_any(self.flow)


def _check_any(flow: CutFlow) -> None:
    if flow.after == 0:
        steps = "; ".join(f"{c.name} removed {c.removed}" for c in flow.cuts if c.removed)
        raise InputError(
            f"no star is left of {flow.before} rows: {steps}",
            remedy="leave a rule out (--without NAME), or check that the tables belong together",
        )


def _report(
    request: Request,
    work: _FromLabels | _FromSpectra,
    tables: Sequence[SurveyTable],
    keyed: Mapping[str, Keyed],
    command: str,
) -> dict[str, Any]:
    """Everything about the selection, for JSON."""
    surveys = [*tables, *(one.table for one in keyed.values())]
    flow = work.flow
    counts: dict[str, int] = {}
    if [table.survey for table in tables] == ["apogee"] and request.rules == load_rules():
        counts = {"training stars": flow.after} | work.known.metallicity
    return {
        "format": REPORT_FORMAT,
        "version": __version__,
        "command": command,
        "spectra": {"files": [str(path) for path in request.spectra]} | work.spectra,
        "tables": [
            {"survey": t.survey, "file": t.where, "rows": len(t), "notes": list(t.notes)}
            for t in surveys
        ],
        "rules": {rule.name: rule.text for rule in request.rules},
        "flow": flow.to_dict(),
        "known": work.known.counts,
        "labels_from": work.taken,
        "offsets": [_without_nan(asdict(offset)) for offset in work.offsets],
        "beside_the_paper": beside_the_paper(counts),
    }


def _without_nan(told: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in told.items()
    }
