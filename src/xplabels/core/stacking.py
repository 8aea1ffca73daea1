"""Blocks of stars -> one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.stars import (
    Band,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Spectra,
    Stars,
    has_correlations,
)


def concatenate(blocks: Sequence[Stars]) -> Stars:
    """Stack blocks of stars of one space and width; labels must be alike or absent in all.

    Raises
    ------
    InputError
        If the blocks differ in space, widths, wavelengths or labels, or if there is none.
    """
    if not blocks:
        raise InputError("no stars at all", remedy="give at least one file with rows")
    first = blocks[0]
    if len(blocks) == 1:
        return first
    for block in blocks[1:]:
        if _kind(block) != _kind(first) or not _same_wavelengths(block.spectra, first.spectra):
            raise InputError(
                f"holds {_kind(block)}, but {first.where or 'the first file'} {_kind(first)}",
                where=block.where,
                remedy="predict them in separate calls",
            )
    origins = dict.fromkeys(block.origin for block in blocks if block.origin)
    files = dict.fromkeys(block.file for block in blocks if block.file)
    notes = tuple(dict.fromkeys(note for block in blocks for note in block.notes))
    labels = [block.labels for block in blocks if block.labels is not None]
    spectra = _concatenate_spectra([block.spectra for block in blocks])
    flags = np.concatenate([block.flags for block in blocks])
    if not has_correlations(spectra):
        # also where a block had them: they are not used beside others that lack them
        flags = flags | np.uint32(Flag.NO_CORRELATIONS)
    return Stars(
        np.concatenate([block.source_id for block in blocks]),
        spectra,
        Photometry(
            np.concatenate([block.photometry.values for block in blocks]),
            np.concatenate([block.photometry.errors for block in blocks]),
        ),
        flags,
        Labels(
            labels[0].names,
            np.concatenate([part.values for part in labels]),
            np.concatenate([part.errors for part in labels]),
        )
        if labels
        else None,
        ", ".join(origins),
        notes,
        ", ".join(files),
    )


def _kind(stars: Stars) -> str:
    """Space, widths and labels in words: what must agree before stacking."""
    spectra = stars.spectra
    if isinstance(spectra, CoefficientSpectra):
        text = f"{spectra.widths[0]}+{spectra.widths[1]} coefficients"
    else:
        low, high = spectra.wavelength[[0, -1]]
        text = f"flux sampled at {len(spectra.wavelength)} wavelengths, {low:g}-{high:g} nm"
    return text if stars.labels is None else f"{text} with labels {','.join(stars.labels.names)}"


def _same_wavelengths(one: Spectra, other: Spectra) -> bool:
    if isinstance(one, SampledSpectra) and isinstance(other, SampledSpectra):
        return np.array_equal(one.wavelength, other.wavelength)
    return True


def _concatenate_spectra(parts: Sequence[Spectra]) -> Spectra:
    first = parts[0]
    if isinstance(first, SampledSpectra):
        sampled = [part for part in parts if isinstance(part, SampledSpectra)]
        return SampledSpectra(
            first.wavelength,
            np.concatenate([part.flux for part in sampled]),
            np.concatenate([part.flux_error for part in sampled]),
        )
    coefficient = [part for part in parts if isinstance(part, CoefficientSpectra)]
    return CoefficientSpectra(
        _concatenate_band([part.bp for part in coefficient]),
        _concatenate_band([part.rp for part in coefficient]),
    )


def _concatenate_band(parts: Sequence[Band]) -> Band:
    packed = [part.correlations for part in parts if part.correlations is not None]
    return Band(
        np.concatenate([part.coefficients for part in parts]),
        np.concatenate([part.errors for part in parts]),
        # without the correlations of every block, none can be used
        np.concatenate(packed) if len(packed) == len(parts) else None,
    )
