"""What the README shows exists: its commands parse, its flags and files are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xplabels.cli import build_parser
from xplabels.core.flags import Flag

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (xplabels .+)$", README, re.MULTILINE)
TARGETS = re.findall(r"make ([a-z]+)`", README)


def test_the_two_commands_are_on_the_first_screen() -> None:
    first = README.split("\n## ")[0]
    assert "$ make demo\n" in first
    assert "$ xplabels predict YOUR_FILE.csv --output labels.fits\n" in first
    assert len(first.splitlines()) < 40


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


def test_every_verb_is_shown() -> None:
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert shown >= {"library", "train", "predict", "validate", "models"}


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_flag_is_in_the_table() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert rows == {str(flag.value): flag.name for flag in Flag}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^):#]+)\)", README))
def test_every_linked_file_exists(link: str) -> None:
    assert (ROOT / link).exists()
