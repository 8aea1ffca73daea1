"""How the site is built: ``make docs``. Pages that repeat what the code says are generated here."""

from __future__ import annotations

import os
import sys
from functools import partialmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
os.environ |= {"COLUMNS": "80", "NO_COLOR": "1", "TQDM_DISABLE": "1"}

sys.path.insert(0, str(HERE))
import generated  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

import xplabels  # noqa: E402

project = "xplabels"
author = copyright = "The xplabels developers"
version = release = xplabels.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx.ext.mathjax",
    "sphinx_llms_txt",
]
suppress_warnings = ["myst-nb.lexer"]  # of notebooks that are not executed
exclude_patterns = ["_build", "_generated/*.md"]
templates_path = ["_templates"]

# notebooks: stored without outputs, executed at every build, an error ends the build
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# a command's output comes in pieces that end anywhere: they are one text
NotebookClient.__init__ = partialmethod(NotebookClient.__init__, coalesce_streams=True)
nb_execution_in_temp = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

# the Python reference: one page for each public name, from its docstring
autosummary_generate = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

html_theme = "sphinx_book_theme"
html_title = "xplabels"
# MathJax from a package, so that equations need no network
mathjax = find_spec("sphinx-mathjax-offline")
assert mathjax is not None
html_static_path = ["_static", str(Path(str(mathjax.origin)).parent / "static")]
mathjax_path = "mathjax/tex-chtml.js"
html_css_files = ["site.css"]
html_theme_options = {
    "repository_url": "https://github.com/xplabels/xplabels",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
    "max_navbar_depth": 2,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field is in the sidebar
}
llms_txt_summary = "Stellar labels, with calibrated errors, from Gaia BP/RP (XP) spectra."
llms_txt_full_file = False
llms_txt_uri_template = "{base_url}{docname}.html"
html_baseurl = "https://xplabels.readthedocs.io/en/latest/"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: generated.write(HERE / "_generated"))
