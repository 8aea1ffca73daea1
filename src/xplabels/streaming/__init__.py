"""Files of spectra to catalogues of labels: in blocks, several files at a time, resumable.

:func:`~xplabels.streaming.file.predict_file` labels one file; :mod:`~xplabels.streaming.workers`
does many, in processes that may die; :mod:`~xplabels.streaming.folder` keeps a catalogue a file,
:mod:`~xplabels.streaming.catalogue` makes one of all.
"""

from __future__ import annotations

from xplabels.streaming.catalogue import predict_catalogue
from xplabels.streaming.file import Order, predict_file
from xplabels.streaming.folder import Summary, predict_folder
from xplabels.streaming.inputs import Inputs, find_inputs
from xplabels.streaming.manifest import Entry, Settings, entry_path, read_entry, whole_output
from xplabels.streaming.on_dask import OnDask
from xplabels.streaming.photometry import Companions

__all__ = [
    "Companions",
    "Entry",
    "Inputs",
    "OnDask",
    "Order",
    "Settings",
    "Summary",
    "entry_path",
    "find_inputs",
    "predict_catalogue",
    "predict_file",
    "predict_folder",
    "read_entry",
    "whole_output",
]
