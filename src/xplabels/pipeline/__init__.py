"""Files of spectra to catalogues of labels: in blocks, several files at a time, resumable.

:func:`~xplabels.pipeline.file.predict_file` labels one file; :mod:`~xplabels.pipeline.workers`
does many, in processes that may die; :mod:`~xplabels.pipeline.folder` keeps a catalogue per file,
or makes one of all.
"""

from __future__ import annotations

from xplabels.pipeline.file import PredictOptions, predict_file
from xplabels.pipeline.folder import Summary, predict_catalogue, predict_folder
from xplabels.pipeline.inputs import Inputs, find_inputs
from xplabels.pipeline.manifest import ManifestEntry, entry_path, read_entry
from xplabels.pipeline.photometry import AuxiliaryTables
from xplabels.pipeline.workers import OnDask

__all__ = [
    "AuxiliaryTables",
    "Inputs",
    "ManifestEntry",
    "OnDask",
    "PredictOptions",
    "Summary",
    "entry_path",
    "find_inputs",
    "predict_catalogue",
    "predict_file",
    "predict_folder",
    "read_entry",
]
