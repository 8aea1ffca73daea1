"""The page on training tables shows what exists: commands parse, the rules are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from xplabels.cli import build_parser
from xplabels.cuts.rules import load_rules, parse_rule
from xplabels.surveys import SURVEYS

PAGE = (Path(__file__).parents[1] / "docs" / "training_table.md").read_text()


def test_every_command_parses() -> None:
    commands = re.findall(r"^\$ xplabels (.+)$", PAGE, re.MULTILINE)
    for command in commands:
        build_parser().parse_args(shlex.split(command))
    assert {command.split()[0] for command in commands} == {"select", "train", "match"}


def test_the_default_rules_are_listed() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+)` \|$", PAGE, re.MULTILINE))
    assert rows == {rule.name: rule.text for rule in load_rules()}


def test_the_rules_in_the_text_are_rules() -> None:
    rules = dict(re.findall(r"--rule '(\w+)=([^']+)'", PAGE))
    assert {parse_rule(name, text).name for name, text in rules.items()} == {"clean", "light"}


def test_the_surveys_listed_are_those_there_are() -> None:
    table = PAGE.split("## Tables")[1].split("\n\n")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(SURVEYS)
