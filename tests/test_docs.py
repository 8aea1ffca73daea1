"""README and docs show what exists: commands parse, links resolve, flags are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xplabels.cli import build_parser
from xplabels.core.flags import ABOUT, GOOD

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
README = PAGES["README.md"]


def shown(pattern: str, pages: dict[str, str] = PAGES) -> list[tuple[str, str]]:
    """Every match in the pages, with its page; at least one, or the test tests nothing."""
    found = [
        (page, match)
        for page, text in pages.items()
        for match in re.findall(pattern, text, re.MULTILINE)
    ]
    assert found, f"no page shows {pattern}"
    return found


@pytest.mark.parametrize(("page", "command"), shown(r"^\$ xplabels (.+)$"))
def test_every_command_parses(page: str, command: str) -> None:
    build_parser().parse_args(shlex.split(command))


@pytest.mark.parametrize(("page", "link"), shown(r"\]\(([^):#]+)(?:#[^)]*)?\)"))
def test_every_linked_file_exists(page: str, link: str) -> None:
    assert (ROOT / page).parent.joinpath(link).exists()


@pytest.mark.parametrize(("page", "target"), sorted(set(shown(r"make ([a-z-]+)`"))))
def test_every_make_target_exists(page: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_two_commands_are_on_the_first_screen() -> None:
    first = README.split("\n## ")[0]
    assert "$ make demo\n" in first
    assert "$ xplabels predict YOUR_FILE.csv --output labels.fits\n" in first
    assert len(first.splitlines()) < 40


def test_every_command_is_shown() -> None:
    commands = {shlex.split(command)[0] for _, command in shown(r"^\$ xplabels (.+)$")}
    assert commands >= {"library", "train", "predict", "validate", "models", "select", "fetch"}


def test_every_flag_is_in_the_table_with_its_meaning() -> None:
    page = PAGES["docs/flags.md"]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (.+) \| (.*?) ?\|$", page, re.MULTILINE)
    assert rows == [
        (str(flag.value), flag.name, about.meaning, about.advice, "not good" * about.bad)
        for flag, about in ABOUT.items()
    ]
    assert GOOD in " ".join(page.split())
