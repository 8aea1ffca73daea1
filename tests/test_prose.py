"""The English of README, site and help: expressions that ``style.yaml`` lists are not used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from test_docs import PAGES, ROOT

PAGES = PAGES | {"CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
RULES = {
    pattern: remedy
    for group in yaml.safe_load((Path(__file__).parent / "style.yaml").read_text("utf-8")).values()
    for pattern, remedy in group.items()
}


def prose(text: str) -> str:
    """Paragraphs as single lines: no code, no generated tables, no addresses."""
    text = re.sub(r"<!-- (.+?): begin -->.*?<!-- (?:\1: )?end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+", "`", text)
    return re.sub(r"(?<!\n)\n(?![\n|#*-]|\d\.)", " ", text)


def objections(text: str) -> list[str]:
    """Each expression found, with its paragraph's beginning and what to write instead."""
    return [
        f"{found[0]!r} in {line[:80]!r}: {remedy}"
        for pattern, remedy in RULES.items()
        for line in prose(text).splitlines()
        for found in re.finditer(pattern, line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_no_listed_expression_is_used(page: str) -> None:
    assert objections(PAGES[page]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes 5 us a star.", 1),
        ("The network is\ntold the noise.", 1),
        ("One row per star; the network sees the noise.", 0),
        ("```\n5 us a star\n```\n`us a star`", 0),
    ],
)
def test_the_list_finds_what_it_should(text: str, found: int) -> None:
    assert len(objections(text)) == found
