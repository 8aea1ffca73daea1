"""Bulk files of XP spectra -> a HATS catalogue, in one pass and in half the space.

Data flow: :mod:`files` (what is given, cut into pieces of sky), :mod:`rows` (a block of stars as
rows of the catalogue), :mod:`region` (one piece of sky), :mod:`catalogue` (all of them).
"""

from __future__ import annotations

from xplabels.convert.catalogue import MOST_ROWS, Conversion, convert_files

__all__ = ["MOST_ROWS", "Conversion", "convert_files"]
