"""The rule that divides stars into a training, a validation and a test part.

u = first 8 hexadecimal digits of sha256(str(source_id)) / 2^32. With test fraction t, stars with
u < t are the test part, those with t <= u < t + 0.1 the validation part, and all others the
training part. As this depends on the source_id alone, a star is in the same part in every table.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars

VALIDATION_FRACTION = 0.1
SLICES = 10_000
"""Number of equal parts of 0-1. Stars whose hashes lie in the same one are in the same part of any
split and fold, so a star's fainter copies (:mod:`xplabels.giants.copies`) are given such ids."""

Part = Literal["train", "validation", "test"]


def uniform(source_id: NDArray[np.int64]) -> NDArray[np.float64]:
    """The hash of each source_id as a number in [0, 1)."""
    digests = (hashlib.sha256(str(int(i)).encode()).hexdigest()[:8] for i in source_id)
    return np.fromiter((int(d, 16) / 2**32 for d in digests), np.float64, len(source_id))


def check_test_fraction(test_fraction: float) -> None:
    """Raise :class:`InputError` unless the fraction leaves stars to train and to validate."""
    if not 0.0 <= test_fraction <= 0.8:
        raise InputError(f"the test fraction {test_fraction} should lie between 0 and 0.8")


def part_mask(source_id: NDArray[np.int64], part: Part, test_fraction: float) -> NDArray[np.bool_]:
    """Which stars [N] belong to ``part``.

    Examples
    --------
    >>> ids = np.arange(1000)
    >>> {part: int(part_mask(ids, part, 0.1).sum()) for part in ("train", "validation", "test")}
    {'train': 788, 'validation': 106, 'test': 106}
    """
    check_test_fraction(test_fraction)
    u = uniform(source_id)
    if part == "test":
        return u < test_fraction
    training = u >= test_fraction + VALIDATION_FRACTION
    return training if part == "train" else (u >= test_fraction) & ~training


def slice_of(source_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the :data:`SLICES` the hash of each star [N] lies in."""
    return np.floor(SLICES * uniform(source_id)).astype(np.int64)


def fold_of(source_id: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Which of ``folds`` parts of about equal size each star [N] belongs to.

    Examples
    --------
    >>> np.bincount(fold_of(np.arange(1000), 4)).tolist()
    [250, 253, 237, 260]
    """
    return slice_of(source_id) % folds


def split(stars: Stars, test_fraction: float = 0.1) -> tuple[Stars, Stars, Stars]:
    """Training, validation and test part of ``stars``, by this rule.

    Examples
    --------
    >>> from xplabels.synthetic import example_stars
    >>> [len(part) for part in split(example_stars(100))]
    [76, 14, 10]
    """
    masks = (part_mask(stars.source_id, part, test_fraction) for part in get_args(Part))
    train, validation, test = (stars[mask] for mask in masks)
    return train, validation, test
