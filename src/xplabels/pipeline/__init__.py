"""Files of spectra to catalogues of labels: in blocks, several files at a time, resumable.

:func:`~xplabels.pipeline.file.predict_file` labels one file; :mod:`~xplabels.pipeline.workers`
does many, in processes that may die; :mod:`~xplabels.pipeline.folder` keeps a catalogue a file,
:mod:`~xplabels.pipeline.catalogue` makes one of all.
"""

from __future__ import annotations

from xplabels.pipeline.catalogue import predict_catalogue
from xplabels.pipeline.file import PredictOptions, predict_file
from xplabels.pipeline.folder import Summary, predict_folder
from xplabels.pipeline.inputs import Inputs, find_inputs
from xplabels.pipeline.manifest import ManifestEntry, Settings, entry_path, read_entry, whole_output
from xplabels.pipeline.on_dask import OnDask
from xplabels.pipeline.photometry import AuxiliaryTables

__all__ = [
    "AuxiliaryTables",
    "Inputs",
    "ManifestEntry",
    "OnDask",
    "PredictOptions",
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
