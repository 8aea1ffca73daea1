"""The report: whole or not at all, self-contained, and readable by a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from simulated_predictions import NAMES, PROVENANCE, Simulated, simulate
from xplabels import report
from xplabels.core.errors import InputError
from xplabels.core.flags import GOOD
from xplabels.core.labels import Labels
from xplabels.figures import new_figure
from xplabels.report import write_report
from xplabels.report.page import pretty
from xplabels.validation import Validation, score_prediction
from xplabels.validation.accuracy import card_finding, findings_of, provenance_finding
from xplabels.validation.finding import Finding, ReportTable, Section, text_of

CARD = """# A simulated model
Trained on *nothing*; `weights` <script>alert(1)</script> ![x](https://example.org/x.png)

| label | RMSE |
|---|---|
| teff | 100 K |
"""


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(1500, shrink=0.7)


@pytest.fixture(scope="module")
def validated(simulated: Simulated) -> Validation:
    return score_prediction(
        simulated.prediction, simulated.labels, g_mag=simulated.g_mag, bp_rp=simulated.bp_rp,
        selection_text="3200 K < teff < 7000 K & simulated", resamples=20,
    )  # fmt: skip


def findings(
    validation: Validation, card: object = CARD, provenance: dict[str, object] = PROVENANCE,
    training: Labels | None = None,
) -> list[Finding]:  # fmt: skip
    found = findings_of(validation, training, provenance)
    return [*found, card_finding(card), provenance_finding(provenance)]


@pytest.fixture(scope="module")
def written(validated: Validation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    nine = ["label, stars, estimate", "N", *(f"coverage {k}" for k in range(7))]
    wide = ReportTable(
        "wide", nine, [["teff, [Fe/H] < -1, mean", "3,577", *["0.9785 ± 0.0035"] * 7]]
    )
    tables = [ReportTable("t", ["a", "b"], [["1", "2"]]), wide]
    extra = Section("extra", "One <more>", ["text & more"], tables)
    folder = tmp_path_factory.mktemp("report") / "run"
    return write_report(folder, validated, [Finding(section=extra), *findings(validated)])


class Page(HTMLParser):
    """Tags, text and, by name, the values of attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.values: dict[str, list[str]] = {"id": [], "href": [], "src": [], "alt": []}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            if key in self.values:
                self.values[key].append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def test_files(written: Path, validated: Validation) -> None:
    folder = written.parent
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "metrics.json", "report.html"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["labels"]["teff"]["rmse"] == pytest.approx(validated.labels["teff"]["rmse"])
    assert metrics["provenance"]["command"] == PROVENANCE["command"]
    names = {p.stem for p in (folder / "figures").iterdir()}
    assert names == {
        "comparison", "calibration", "z", "sizes", "sizes_bins", "errors_g", "errors_labels",
        "kiel", "planes",
    }  # fmt: skip
    assert not [p for p in folder.parent.iterdir() if p != folder]  # nothing else is left


def test_every_image_is_inside_and_decodes(page: Page, written: Path) -> None:
    assert len(page.values["src"]) == 9
    images = []
    for source in page.values["src"]:
        assert source.startswith("data:image/png;base64,")
        images.append(base64.b64decode(source.split(",", 1)[1]))
        pixels = matplotlib.image.imread(BytesIO(images[-1]))
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.02  # not blank
    assert all(page.values["alt"])
    assert (written.parent / "figures" / "comparison.png").read_bytes() in images


def test_nothing_is_loaded_from_elsewhere_and_anchors_lead_somewhere(
    page: Page, written: Path
) -> None:
    text = written.read_text(encoding="utf-8")
    assert not re.findall(r"@import|url\(|<link[^>]*href=\"(?!data:)", text)
    assert not page.tags & {"script", "iframe", "object"}
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert len(set(page.values["id"])) == len(page.values["id"])
    inside = [link[1:] for link in page.values["href"] if link.startswith("#")]
    assert len(inside) > 10
    assert set(inside) <= set(page.values["id"])


def test_what_it_says(page: Page, validated: Validation) -> None:
    for words in (
        "1,500 stars", "3200 K < Teff < 7000 K & simulated", "31657",
        "error bars: wrong (teff, logg",
        PROVENANCE["command"], "One <more>", "text & more", "<script>alert(1)</script>",
        "(20 resamples", "simulated stars", "robust std z",
    ):  # fmt: skip
        assert words in page.text, words
    assert GOOD in page.text
    shown = f"{validated.labels['teff']['rmse']:.0f} ±"
    assert shown in page.text
    assert "✗" in page.text


def test_the_first_screen_says_what_the_terminal_and_metrics_say(
    page: Page, written: Path, validated: Validation
) -> None:
    metrics = json.loads((written.parent / "metrics.json").read_text())["verdict"]
    for line in (f"error bars: {metrics['headline']}", *metrics["lines"]):
        assert line in text_of(findings(validated))
    first = page.text.split("Predictions against")[-2]
    assert Page(str(pretty(metrics["sentence"], NAMES))).text in first
    assert f"error bars: {metrics['headline']}" in first
    for line in metrics["lines"]:  # in the details
        assert Page(str(pretty(line, NAMES))).text in page.text


def test_what_is_left_out_and_the_training_set(
    simulated: Simulated, validated: Validation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without photometry or Teff; with training labels, and a card of names and values."""
    monkeypatch.setattr(report, "png", lambda figure: b"")
    few = score_prediction(simulated.prediction, simulated.labels.select(["logg"]), resamples=0)
    path = write_report(tmp_path / "few", few, findings(few, "", {"version": "1"}))
    page = Page(path.read_text(encoding="utf-8"))
    assert not {"errors_g.png", "kiel.png"} & {p.name for p in (path.parent / "figures").iterdir()}
    assert "nan" not in page.text.lower().split()
    assert "To make this report again" not in page.text
    training = Labels(NAMES, simulated.labels.values * 1.01, simulated.labels.errors)
    found = findings(validated, {"parameters": np.int64(3)}, PROVENANCE, training)
    page = Page(write_report(tmp_path / "new", validated, found).read_text(encoding="utf-8"))
    assert "known labels of the training set" in page.text
    assert "parameters" in page.text


def test_an_existing_folder_needs_overwrite_and_keeps_what_no_report_wrote(
    tmp_path: Path, validated: Validation
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "report.html").write_text("old")
    with pytest.raises(InputError, match=r"run: exists already.*--overwrite"):
        write_report(folder, validated, [])
    assert (folder / "report.html").read_text() == "old"
    write_report(folder, validated, [], overwrite=True)
    assert "error bars: wrong" in (folder / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write_report(folder, validated, [], overwrite=True)
    with pytest.raises(InputError, match="not a folder"):
        write_report(folder / "thesis.tex", validated, [], overwrite=True)


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_and_the_old_report_in_place(
    stop: BaseException, tmp_path: Path, validated: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the finished folder cannot move in or a figure fails half way."""
    old, move = tmp_path / "old", os.replace
    old.mkdir()
    (old / "report.html").write_text("old")

    def fail_on_new(source: Path, target: Path) -> None:
        if ".partial." in Path(source).name:
            raise stop
        move(source, target)

    monkeypatch.setattr(os, "replace", fail_on_new)
    raised = InputError if isinstance(stop, OSError) else KeyboardInterrupt
    for folder in (old, tmp_path / "new"):
        with pytest.raises(raised):
            write_report(folder, validated, [], overwrite=True)
    # "figures/a/b" cannot be written where "a" is not a folder
    section = Section("x", "x")
    section.add_picture("a/b", "", "", lambda: new_figure(1, 1))
    for folder in (old, tmp_path / "new"):
        with pytest.raises(InputError, match="cannot be written"):
            write_report(folder, validated, [Finding(section=section)], overwrite=True)
    assert (old / "report.html").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


PROBE = """<script>addEventListener("load", () => {
  for (const box of document.querySelectorAll("details")) box.open = true;
  const images = [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length;
  const anchors = [...document.querySelectorAll("a[href^='#']")].filter(
    a => !document.getElementById(a.getAttribute("href").slice(1))).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const tables = [...document.querySelectorAll("table")].filter(t => t.offsetHeight < 20).length;
  const tiles = [...document.querySelectorAll(".tile")].filter(
    t => t.scrollWidth > t.clientWidth).length;
  const light = getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128;
  document.title = `probe ${images} ${anchors} ${wide} ${tables} ${tiles} ${light}`;
  setTimeout(() => {  // the hint is an animation
    const boxes = [...document.querySelectorAll(".scroll")];
    const cut = boxes.filter(b => b.scrollWidth > b.clientWidth + 1);
    const hinted = boxes.filter(b => b.querySelector(".hint").offsetHeight > 10);
    document.title += ` ${cut.length} ${cut.length === hinted.length}`;
  }, 2000);
});</script>"""


@pytest.mark.parametrize(("width", "dark"), [(500, False), (500, True), (900, False), (1400, True)])
def test_in_a_browser(
    width: int, dark: bool, written: Path, tmp_path: Path, in_browser: Callable[..., str]
) -> None:
    """No console message; images decode, anchors work, nothing is wider than the window.

    Tables fit, or a hint shows that they are wider.
    """
    probe = tmp_path / "probe.html"
    text = written.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>")
    probe.write_text(text, encoding="utf-8")
    mode = ["--force-dark-mode"] if dark else []
    title = in_browser(probe, f"--window-size={width},900", *mode)
    assert title.startswith(f"probe 0 0 0 0 0 {str(not dark).lower()} ")
    cut, hinted = title.split()[-2:]
    assert hinted == "true"
    assert (cut == "0") is (width >= 900)
