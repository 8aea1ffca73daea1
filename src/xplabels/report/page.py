"""The project's HTML pages and their images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from xplabels.core.labels import label_of

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

TEX = {r"$T_\mathrm{eff}$": "T<sub>eff</sub>", r"$\log g$": "log <i>g</i>", r"$\alpha$": "α"}
"""TeX in the labels' symbols, in HTML."""


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


def pretty(text: str, names: Iterable[str] = ()) -> Markup:
    """Text for a page: labels as the field writes them, ± for +-, everything else escaped.

    Examples
    --------
    >>> print(pretty("teff: 3 +- 1 % too small", ["teff"]))
    T<sub>eff</sub>: 3 ± 1 % too small
    """
    from markupsafe import Markup, escape

    html = str(escape(text)).replace("+-", "±")
    for name in names:
        symbol = str(escape(label_of(name).symbol))
        for tex, plain in TEX.items():
            symbol = symbol.replace(tex, plain)
        html = re.sub(rf"\b{name}\b", symbol, html)
    return Markup(html)


def png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
