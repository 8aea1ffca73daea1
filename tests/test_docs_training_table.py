"""The page on training tables shows what exists: commands parse, the rules are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xplabels.cli import build_parser
from xplabels.cuts.rules import load_rules, parse_rule
from xplabels.surveys import SURVEYS

PAGE = (Path(__file__).parents[1] / "docs" / "training_table.md").read_text()


@pytest.mark.parametrize("command", re.findall(r"^\$ (xplabels .+)$", PAGE, re.MULTILINE))
def test_every_command_parses(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


def test_the_default_rules_are_listed() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+)` \|$", PAGE, re.MULTILINE))
    assert rows == {rule.name: rule.text for rule in load_rules()}


def test_the_rules_in_the_text_are_rules() -> None:
    for name, text in re.findall(r"--rule '(\w+)=([^']+)'", PAGE):
        assert parse_rule(name, text).name == name


def test_every_survey_is_listed() -> None:
    assert {name for name in SURVEYS if f"| `{name}` |" in PAGE} == set(SURVEYS)
