"""README and docs show what exists: commands, links, flags, public names."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import xplabels
from xplabels.cli import build_parser
from xplabels.core.flags import ABOUT, GOOD

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if not {"_build", "_generated"} & set(path.parts)
}
README = PAGES["README.md"]
COMMAND = r"^(?:\$ )?xplabels (?=[a-z])(.+?)(?: \|\| .*)?$"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def shown(pattern: str, pages: dict[str, str] = PAGES) -> list[tuple[str, str]]:
    """Every match in the pages, with its page; at least one, or the test tests nothing."""
    found = [
        (page, match)
        for page, text in pages.items()
        for match in re.findall(pattern, text, re.MULTILINE)
    ]
    assert found, f"no page shows {pattern}"
    return found


@pytest.mark.parametrize(("page", "command"), shown(COMMAND))
def test_every_command_parses(page: str, command: str) -> None:
    build_parser().parse_args(shlex.split(command))


@pytest.mark.parametrize(("page", "link"), shown(r"\]\(([^):#]+)(?:#[^)]*)?\)"))
def test_every_linked_file_exists(page: str, link: str) -> None:
    assert (ROOT / page).parent.joinpath(link).exists()


def test_links_of_the_readme_are_absolute_and_lead_to_files() -> None:
    """It is shown by package indexes, too, which have no other files."""
    urls = PROJECT["urls"]
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert all(link.startswith("https://") for link in links)
    for start, folder, ending in (
        (f"{urls['Homepage']}/blob/main/", ROOT, ""),
        (f"{urls['Homepage'].replace('github', 'raw.githubusercontent')}/main/", ROOT, ""),
        (f"{urls['Documentation']}/en/latest/", ROOT / "docs", ".md"),
    ):
        found = [link.removeprefix(start) for link in links if link.startswith(start)]
        assert found
        for path in found:
            target = folder / path.removesuffix(".html")
            assert target.with_name(target.name + ending).is_file(), path


def test_every_page_is_on_the_contents_page() -> None:
    listed = re.findall(r"^([\w/-]+)$", PAGES["docs/index.md"], re.MULTILINE)
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if "docs/" in page}
    assert sorted(listed) == sorted(pages - {"index"} | {"api"})


def test_every_public_name_has_an_entry() -> None:
    api = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (?!:)(\w+)$|^\.\. data:: (\w+)$", api, re.MULTILINE)
    assert sorted(one or other for one, other in listed) == sorted(xplabels.__all__)


@pytest.mark.parametrize("name", sorted(set(xplabels.__all__) - {"LABELS"}))
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(xplabels, name)) or "")


def test_the_version_is_one() -> None:
    for page, pattern in (
        ("CITATION.cff", r"^version: (.+)$"),
        ("conda/recipe.yaml", r'^  version: "(.+)"$'),
        ("docs/cite.md", r"^  version = \{(.+)\},$"),
        ("CHANGELOG.md", r"^## (\S+)"),
    ):
        (version, *_) = re.findall(pattern, (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert version == xplabels.__version__, page


@pytest.mark.parametrize(("page", "target"), sorted(set(shown(r"make ([a-z-]+)`"))))
def test_every_make_target_exists(page: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_two_commands_are_on_the_first_screen() -> None:
    first = README.split("\n## ")[0]
    assert "$ make demo\n" in first
    assert "$ xplabels predict YOUR_FILE.csv --output labels.fits\n" in first
    assert len(first.splitlines()) < 40


def test_every_command_is_shown() -> None:
    commands = {shlex.split(command)[0] for _, command in shown(COMMAND)}
    assert commands >= {"library", "train", "predict", "validate", "models", "select", "fetch"}


def test_every_flag_is_in_the_table_with_its_meaning() -> None:
    page = PAGES["docs/flags.md"]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (.+) \| (.*?) ?\|$", page, re.MULTILINE)
    assert rows == [
        (str(flag.value), flag.name, about.meaning, about.advice, "not good" * about.bad)
        for flag, about in ABOUT.items()
    ]
    assert GOOD in " ".join(page.split())
