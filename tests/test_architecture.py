"""The layout in docs/architecture.md is that of the code; imports follow it, and are fast."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
FILES_ONLY = {"data", "models"}
HANDS_OVER = {"core.prediction": "io.catalogue", "core.stars": "io.tables"}
"""``labels.write(...)`` and ``stars.join(...)``, which a user looks for where the data are."""


HEAVY = {
    "torch", "matplotlib", "gaiaxpy", "astropy", "astroquery", "pyvo", "requests", "lsdb", "dask",
    "gavo", "hats", "pandas", "pyarrow", "scipy",
}  # fmt: skip
"""Libraries that wait until they are used."""


def layers() -> list[list[str]]:
    """The modules of each line of the table."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return [re.findall(r"`(\w+)/?`", line) for line in lines]


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((SOURCE / "xplabels").rglob("*.py"))
    }


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a file imports when it is loaded or used, not for types only."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            # from the module itself, unless a module of it is all that is taken
            found.update(name if name in known else node.module for name in whole)
        waiting.extend(ast.iter_child_nodes(node))
    return found & known.keys()


@cache
def graph() -> dict[str, set[str]]:
    """Every module, and which others it imports."""
    known = modules()
    handed = {f"xplabels.{name}": {f"xplabels.{to}"} for name, to in HANDS_OVER.items()}
    return {
        name: imports(path, known) - {name} - handed.get(name, set())
        for name, path in known.items()
    }


def test_every_module_stands_in_the_table_once() -> None:
    listed = [module for layer in layers() for module in layer]
    modules = {
        path.stem
        for path in (SOURCE / "xplabels").iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    }
    assert sorted(listed) == sorted(modules - FILES_ONLY - {"__init__"})


def test_no_module_imports_one_below_it() -> None:
    layer_of = {module: n for n, layer in enumerate(layers()) for module in layer}
    assert len(graph()) > 60
    back = [
        f"{name} imports {taken}"
        for name, others in graph().items()
        for taken in others
        if "xplabels" not in (name, taken)
        and layer_of[taken.split(".")[1]] > layer_of[name.split(".")[1]]
    ]
    assert back == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError, which names the circle


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_only_the_command_line_prints() -> None:
    printing = [
        name
        for name, path in modules().items()
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert [name for name in printing if not name.startswith("xplabels.cli")] == []


def test_no_file_is_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > 600} == {}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("xplabels.cli", HEAVY | {"numpy"}),  # --help is fast
        ("xplabels, xplabels.api, xplabels.validation, xplabels.figures", HEAVY),
    ],
)
def test_importing_loads_no_heavy_library(modules: str, absent: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not absent & set(loaded)
