"""Files of spectra to catalogues of labels: in blocks, several files at a time, resumable.

:func:`~xplabels.pipeline.file.predict_file` labels one file; :mod:`~xplabels.pipeline.workers`
does many, in processes that may die; :mod:`~xplabels.pipeline.folder` keeps a catalogue per file,
or makes one of all.
"""

from __future__ import annotations

from xplabels.pipeline.file import PredictOptions as PredictOptions
from xplabels.pipeline.file import predict_file as predict_file
from xplabels.pipeline.folder import Summary as Summary
from xplabels.pipeline.folder import predict_catalogue as predict_catalogue
from xplabels.pipeline.folder import predict_folder as predict_folder
from xplabels.pipeline.inputs import find_inputs as find_inputs
from xplabels.pipeline.manifest import ManifestEntry as ManifestEntry
from xplabels.pipeline.manifest import read_entry as read_entry
from xplabels.pipeline.photometry import AuxiliaryTables as AuxiliaryTables
from xplabels.pipeline.workers import OnDask as OnDask
