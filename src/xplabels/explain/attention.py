"""What the network looks at: attention (FS24, eq. 13) and derivative spectra (eq. 14).

Attention is the share of each input in a label, G_ij = J_ij x_i. Derivative spectra answer the
question the other way round: how does the spectrum change when a label does? J = dy/dx has more
columns than rows, so its inverse needs a weighting S of the inputs:

    dx/dy = S J^T (J S J^T)^-1

FS24's eq. 14, pinv(J w^2)^T w^2, is this with S = diag(std(x)^2). With the full covariance of x
it is the regression of the inputs on the predicted labels, for a linear network exactly (Haufe et
al. 2014): what moves together in real spectra moves together in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS
from xplabels.core.selection import Selection
from xplabels.core.stars import Stars
from xplabels.explain.derivatives import Derivatives, derivative_blocks
from xplabels.model import BLOCK, Model

Weighting = Literal["covariance", "fs24"]

RED_CLUMP = {
    "teff": (4700.0, 4800.0),
    "logg": (2.0, 3.0),
    "fe_h": (-0.5, 0.5),
    "c_fe": (-0.2, 0.2),
    "n_fe": (0.0, 0.4),
}
"""FS24, table 5, as ranges of labels in their units."""


class Moments:
    """Mean and scatter of arrays [M, ...] that come in blocks; NaN is left out.

    Chan, Golub & LeVeque's update, so that neither the number of blocks nor a large mean costs
    accuracy; memory does not grow with the number of rows.
    """

    def __init__(self) -> None:
        self.count: NDArray[np.float64] = np.zeros(())
        self.mean: NDArray[np.float64] = np.zeros(())
        self._squares: NDArray[np.float64] = np.zeros(())

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in M more rows."""
        known = np.isfinite(values)
        count = known.sum(axis=0).astype(np.float64)
        some = np.maximum(count, 1.0)
        mean = np.where(known, values, 0.0).sum(axis=0) / some
        squares = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
        total = self.count + count
        some = np.maximum(total, 1.0)
        step = mean - self.mean
        self._squares = self._squares + squares + step**2 * self.count * count / some
        self.mean = self.mean + step * count / some
        self.count = total

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation about the mean (population); NaN where nothing came."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(np.where(self.count > 0, self._squares / self.count, np.nan)))


class Covariance:
    """Mean and covariance of rows [M, n] that come in blocks."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self._products = np.zeros((width, width))

    @classmethod
    def known(cls, mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> Covariance:
        """One that is known from elsewhere, with the weight of one row."""
        made = cls(len(mean))
        made.count, made.mean, made._products = 1, mean.copy(), matrix.copy()
        return made

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in M more rows, all of them finite."""
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        total = self.count + len(rows)
        step = mean - self.mean
        self._products += centred.T @ centred
        self._products += np.outer(step, step) * (self.count * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.count = total

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Population covariance [n, n]."""
        return self._products / max(self.count, 1)


@dataclass(frozen=True)
class Attention:
    """Attention of K labels to F inputs over a sample (FS24, eq. 13 and fig. 8).

    Attributes
    ----------
    names, inputs
        K labels and F inputs.
    count
        Float64 [F]: stars that have the input.
    mean, deviation
        Float64 [K, F]: of G over these stars, in the labels' units; NaN where no star has it.
    """

    names: tuple[str, ...]
    inputs: tuple[str, ...]
    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def star_attention(model: Model, derivatives: Derivatives) -> NDArray[np.float64]:
    """G_ij = J_ij x_i, [M, K, F], in the labels' units; NaN for inputs a star lacks.

    Spectral inputs count as they are, c / r0; the others from their mean over the training set,
    since the paper z-scores only those.
    """
    x = derivatives.x.copy()
    n = model.feature_set.n_spectral
    x[:, n:] -= model.scaling.x_mean[n:]
    return derivatives.jacobian * x[:, None, :]


def attention(model: Model, stars: Stars | Iterable[Stars], block: int = BLOCK) -> Attention:
    """Mean and standard deviation of G over a sample.

    Parameters
    ----------
    model
        Any model.
    stars
        A table of stars or a stream of tables (as of :func:`xplabels.io.read_blocks`): a
        million stars take no more memory than a thousand.
    block
        Stars at a time.

    Raises
    ------
    InputError
        If no star can be predicted, or the spectra do not fit the model.

    Examples
    --------
    >>> from xplabels.synthetic import example_stars
    >>> model = Model.load("apogee-dr17-library")
    >>> attention(model, example_stars(30)).deviation.shape == (4, len(model.feature_set.names))
    True
    """
    sums = Moments()
    for derivatives in derivative_blocks(model, stars, block):
        sums.add(star_attention(model, derivatives))
    if not np.any(sums.count):
        raise _nobody()
    return Attention(
        model.names,
        model.feature_set.names,
        np.asarray(sums.count[0]),
        np.where(sums.count > 0, sums.mean, np.nan),
        sums.deviation,
    )


@dataclass(frozen=True)
class DerivativeSpectra:
    """How normalised coefficients change with each label, labels taken together.

    Attributes
    ----------
    names
        K labels.
    coefficients
        Float64 [K, n]: dx/dy of the spectral inputs x = c / r0, BP before RP, per unit of the
        label; for a model trained on sampled flux, c stands for the coefficients it sees.
    mean
        Float64 [n]: mean x of the stars.
    weighting
        ``covariance`` or ``fs24``.
    stars
        How many stars the Jacobian was averaged over.
    """

    names: tuple[str, ...]
    coefficients: NDArray[np.float64]
    mean: NDArray[np.float64]
    weighting: Weighting
    stars: int

    def sampled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wavelengths [L] in nm and derivative spectra [K, L], by GaiaXPy's default sampling.

        In W m^-2 nm^-1 for RP coefficient 0 of one, per unit of the label.

        Raises
        ------
        InputError
            If GaiaXPy is not installed, or the model has other widths than DR3's 55 + 55.
        """
        from xplabels.instrument import sampled_flux

        return sampled_flux(self.coefficients)

    def relative(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`sampled`, divided by the mean spectrum of the stars: d ln f / dy."""
        from xplabels.instrument import sampled_flux

        wavelength, flux = self.sampled()
        return wavelength, flux / sampled_flux(self.mean[None, :])[1]


def derivative_spectra(
    model: Model,
    stars: Stars | Iterable[Stars],
    weighting: Weighting = "covariance",
    *,
    weights: Covariance | None = None,
    block: int = BLOCK,
) -> DerivativeSpectra:
    """Derivative spectra of the stars' mean Jacobian, by eq. 14 or with the full covariance of x.

    Parameters
    ----------
    model
        Any model.
    stars
        A selection of stars (see :func:`red_clump`), whole or as a stream.
    weighting
        ``fs24``: the paper's weights, the standard deviation of each coefficient;
        ``covariance``: their full covariance.
    weights
        Covariance of the spectral inputs to weight by (see :func:`input_covariance`), such as
        that of a whole sample of which ``stars`` are a part. None: that of ``stars``.
    block
        Stars at a time.

    Raises
    ------
    InputError
        If there are fewer than two stars with a prediction for each label, or the labels' rows of
        the Jacobian do not tell the labels apart.
    """
    if weighting not in ("covariance", "fs24"):
        raise InputError(f"weighting {weighting!r}", remedy="choose 'covariance' or 'fs24'")
    n = model.feature_set.n_spectral
    jacobian, spread = Moments(), Covariance(n)
    for derivatives in derivative_blocks(model, stars, block):
        jacobian.add(derivatives.jacobian[:, :, :n])
        spread.add(derivatives.x[:, :n])
    if spread.count < 2:
        raise _nobody()
    s = (weights or spread).matrix
    if weighting == "fs24":
        s = np.diag(np.diag(s))
    return DerivativeSpectra(
        model.names, inverse_jacobian(jacobian.mean, s), spread.mean, weighting, spread.count
    )


def input_covariance(
    model: Model, stars: Stars | Iterable[Stars], block: int = BLOCK
) -> Covariance:
    """Covariance of the spectral inputs x = c / r0 over stars that have a spectrum."""
    n = model.feature_set.n_spectral
    spread = Covariance(n)
    for part in [stars] if isinstance(stars, Stars) else stars:
        for start in range(0, len(part), block):
            x = model.feature_set.compute(part[slice(start, start + block)]).x[:, :n]
            spread.add(x[np.isfinite(x).all(axis=1)])
    return spread


def training_covariance(model: Model) -> Covariance:
    """Covariance of the spectral inputs over the model's training stars, as it knows it."""
    n, scaling = model.feature_set.n_spectral, model.scaling
    scale = scaling.x_scale[:n]
    return Covariance.known(
        scaling.x_mean[:n], scale[:, None] * scaling.x_correlation[:n, :n] * scale
    )


def inverse_jacobian(
    jacobian: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """dx/dy [K, n]: the transpose of S J^T (J S J^T)^-1, for J [K, n] and S [n, n].

    Raises
    ------
    InputError
        If J S J^T is singular: the labels do not depend on the inputs independently.
    """
    cross = jacobian @ weights  # [K, n]
    gram = cross @ jacobian.T
    scale = np.sqrt(np.diag(gram))
    if not (scale > 0).all() or np.linalg.cond(gram / np.outer(scale, scale)) > 1e12:
        raise InputError(
            "the labels do not depend on the spectra independently of each other here",
            remedy="choose more stars, or more varied ones",
        )
    return np.asarray(np.linalg.solve(gram, cross))


def red_clump(stars: Stars) -> tuple[Stars, list[str]]:
    """The red clump stars of FS24's table 5 among stars with known labels, and the cut flow.

    Cuts on labels that the table lacks are left out; the cut flow says so.

    Raises
    ------
    InputError
        If the stars have none of these labels, or none is in the red clump.
    """
    known = () if stars.labels is None else stars.labels.names
    ranges = {name: bounds for name, bounds in RED_CLUMP.items() if name in known}
    if not ranges:
        raise InputError(
            "has none of the labels that tell a red clump star",
            where=stars.origin or None,
            remedy=f"add {', '.join(RED_CLUMP)} with errors, as far as they are known",
        )
    selected, flow = Selection(ranges).apply(stars)
    left_out = [LABELS[name].description for name in RED_CLUMP if name not in known]
    if left_out:
        flow.append(f"not cut on, because the table lacks it: {', '.join(left_out)}")
    return selected, flow


def _nobody() -> InputError:
    return InputError(
        "too few stars have a prediction to say what the model looks at",
        remedy="give more stars, with spectra in both bands",
    )
