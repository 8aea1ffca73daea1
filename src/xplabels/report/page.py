"""The project's HTML pages and their images."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure


def template(name: str) -> Template:
    """A template of the folder ``data``: text is escaped, an unknown name in it is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xplabels", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
