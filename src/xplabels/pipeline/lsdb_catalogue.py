"""Labels of a HATS catalogue through LSDB, on whatever Dask runs on; written as HATS."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.stars import Band, CoefficientSpectra, Stars, with_widths
from xplabels.io.atomic import check_output
from xplabels.io.nested import is_nested
from xplabels.io.parquet import FORMAT_VERSION, stars_of
from xplabels.io.rows import ARRAYS, Assembler
from xplabels.model import Model

Catalogue = Any
Frame = Any

ZSTD = {"compression": "zstd", "compression_level": 3}
META: Mapping[str, Any] = {"format": FORMAT_VERSION, "space": CoefficientSpectra.space}
"""The metadata of a star table, which a data frame does not keep."""


class SentModel:
    """A model as it is sent to Dask's workers, each of which unpacks it once.

    Of a model given by its folder or name, only that is sent: every worker must see the same files.
    A :class:`~xplabels.model.Model` is sent as a whole, with every task.
    """

    def __init__(self, model: Model | str | Path, correlations: bool = False) -> None:
        loaded = model if isinstance(model, Model) else Model.load(model)
        self.correlations = correlations
        self.sha256 = str(loaded.metadata.get("sha256", ""))
        self._packed = pickle.dumps(model if isinstance(model, Model) else str(model))

    def __dask_tokenize__(self) -> tuple[str, bool, str]:
        return self.sha256, self.correlations, hashlib.sha256(self._packed).hexdigest()

    def model(self) -> Model:
        """The model; raises InputError if the folder this worker sees holds another one."""
        model = _unpacked(self._packed)
        if str(model.metadata.get("sha256", "")) != self.sha256:
            raise InputError(
                "a worker sees another model here than the one that was asked for",
                where=pickle.loads(self._packed),
                remedy="give the model itself, Model.load(...), in place of its folder",
            )
        return model


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> Model:
    model = pickle.loads(packed)
    return model if isinstance(model, Model) else Model.load(model)


def predict_catalog(
    model: Model | str | Path, catalog: Catalogue, correlations: bool = False
) -> Catalogue:
    """Labels of all stars of an LSDB catalogue of spectra, as an LSDB catalogue.

    As usual in LSDB, nothing is computed until the result is written (:func:`write_catalog`) or
    computed, on the Dask client of that time. Its columns are ``source_id``, the catalogue's two
    columns of position, and those of :meth:`~xplabels.core.prediction.Prediction.to_arrow`; it has
    the catalogue's partitions.

    Parameters
    ----------
    model
        A model, or its folder or name, if all workers see the same files.
    catalog
        What ``lsdb.open_catalog`` returns for a catalogue that ``xplabels convert`` made, opened
        with all its columns, for the public collection of DR3's spectra, or for any other with the
        archive's columns of coefficients; InputError if not.
    correlations
        Whether to add the correlations of each star's label errors.

    Examples
    --------
    >>> import lsdb                                           # doctest: +SKIP
    >>> from dask.distributed import Client                   # doctest: +SKIP
    >>> with Client(n_workers=4, threads_per_worker=1):       # doctest: +SKIP
    ...     stars = lsdb.open_catalog("xp_hats")
    ...     labels = predict_catalog("apogee-dr17-library", stars)
    ...     write_catalog(labels, "labels_hats")
    """
    absent = [name for name in ("source_id", *ARRAYS) if name not in catalog.columns]
    if absent and not is_nested(catalog.columns):
        raise InputError(
            f"the catalogue lacks the columns {', '.join(absent)}",
            remedy='open it with columns="all"',
        )
    info = catalog.hc_structure.catalog_info
    position = (info.ra_column, info.dec_column)
    packed_model = SentModel(model, correlations)
    meta = _labels(catalog.meta.iloc[:0], packed_model, position)
    return catalog.map_partitions(_labels, packed_model, position, meta=meta)


def write_catalog(labels: Catalogue, folder: str | Path, overwrite: bool = False) -> None:
    """Save what :func:`predict_catalog` gave as a HATS catalogue (zstd, level 3).

    LSDB's own writer does it: it may be called directly, with other options.

    Raises InputError if ``folder`` exists and ``overwrite`` is false, or cannot be written.

    Examples
    --------
    >>> labels = predict_catalog("apogee-dr17-library", stars)  # doctest: +SKIP
    >>> write_catalog(labels, "labels_hats")  # doctest: +SKIP
    """
    folder = Path(folder)
    check_output(folder, overwrite)
    labels.write_catalog(
        folder, catalog_name=folder.name, as_collection=False, overwrite=overwrite,
        progress_bar=False, write_table_kwargs=dict(ZSTD),
    )  # fmt: skip


def _labels(frame: Frame, sent: SentModel, position: tuple[str, str]) -> Frame:
    import pandas as pd

    model = sent.model()
    stars = _stars(frame, model.feature_set.widths)
    prediction = model.predict(stars, correlations=sent.correlations)
    labels = prediction.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
    labels.index = frame.index
    for number, name in enumerate(position, start=1):
        labels.insert(number, name, frame[name])
    return type(frame)(labels)


def _stars(frame: Frame, widths: tuple[int, int]) -> Stars:
    """The stars of a partition; an empty one gets bands of the model's ``widths``."""
    import pyarrow as pa

    if len(frame):
        (batch,) = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks().to_batches()
        return with_widths(stars_of(batch, META, Assembler(Path("catalogue"), "flag")), widths)
    empty = [np.empty((0, width)) for width in widths]
    correlations = [np.empty((0, width * (width - 1) // 2), np.float32) for width in widths]
    bands = [Band(rows, rows, pairs) for rows, pairs in zip(empty, correlations, strict=True)]
    return Stars.of(np.empty(0, np.int64), CoefficientSpectra(*bands))
