"""Features, scaling, networks and provenance in one saved thing that predicts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.domain import Domain, LabelSupport
from xplabels.calibration.factors import Calibration
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.calibration.transfer import CalibrationStars
from xplabels.core.errors import InputError
from xplabels.core.flags import UNUSABLE, Flag
from xplabels.core.prediction import PARTS, Prediction, packed_correlations, stack
from xplabels.core.stars import CoefficientSpectra, Stars
from xplabels.features import Features, FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.forward import ForwardModel
from xplabels.inference import Inference
from xplabels.inference.network import Perceptron
from xplabels.instrument.basis import THREE_WAYS, Basis, converted, gaiaxpy_basis
from xplabels.instrument.noise import with_correlations
from xplabels.io import read
from xplabels.model.storage import find_model, read_model, shipped, write_model
from xplabels.recipes import Recipe

__all__ = ["BLOCK", "DEFAULT_MODEL", "Estimate", "Model", "find_model", "load_model", "shipped"]

DEFAULT_MODEL = "apogee-dr17-library"
"""The shipped model that is taken when none is named."""
BLOCK = 2048
"""Stars predicted at a time: bounds memory, and results do not depend on it."""

Estimate = Literal["mean", "unshrunk"]


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model.

    Attributes
    ----------
    names
        K labels.
    feature_set, scaling
        What the inputs are, and their training statistics.
    networks
        One network, or the members of an ensemble.
    recipe
        How it was trained; ``recipe.scatter`` names the kind of model variance.
    calibration, domain
        Fitted on stars that the network did not see, and on the training part.
    label_range
        Float64 [K, 2]: smallest and largest label trained on.
    metadata
        Provenance, as it stands in ``model.json``.
    card
        Markdown: what the model is, what it was trained on, how well it does.
    unshrinking
        Takes the shrinkage (regression to the mean) out of predictions, fitted on the validation
        part; None for a model trained before there was such a correction.
    label_audit
        Training and validation stars with labels that are probably wrong, as CSV with the columns
        of :meth:`~xplabels.validation.audit.LabelAudit.to_arrow`; empty for a model trained before
        labels were audited.
    estimate
        What the model predicts: ``mean``, or ``unshrunk``, without the shrinkage.
    support
        Where labels are defined; None: wherever there is a prediction.
    calibration_stars
        A sample of the stars its errors were calibrated on, for
        :func:`~xplabels.model.refitting.check_errors`; None for a model trained before there was.
    forward
        What spectrum the labels predict, and how well a star fits; None: ``domain`` alone says
        whether a star is unlike the training set, and noise looks strange.
    common
        Columns of the labels that most training stars have, by which errors are calibrated, fits
        judged and stars compared; empty: all.
    basis
        Of spectra that are not in the model's own (:meth:`with_basis`); not saved.

    Examples
    --------
    >>> import xplabels as xp
    >>> model = xp.load_model()
    >>> model.names
    ('teff', 'logg', 'fe_h', 'c_fe', 'n_fe', 'alpha_m')
    >>> model.predict(xp.example_stars(3)).values.shape
    (3, 6)
    """

    names: tuple[str, ...]
    feature_set: FeatureSet
    scaling: Scaling
    networks: tuple[Perceptron, ...]
    recipe: Recipe
    calibration: Calibration
    domain: Domain
    label_range: NDArray[np.float64]
    metadata: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    unshrinking: ShrinkageCorrection | None = None
    label_audit: str = field(default="", repr=False)
    estimate: Estimate = "mean"
    support: LabelSupport | None = None
    calibration_stars: CalibrationStars | None = None
    forward: ForwardModel | None = None
    common: tuple[int, ...] = ()
    basis: Basis | None = None

    @classmethod
    def load(cls, name_or_path: str | Path) -> Model:
        """The model of a folder or, if there is no such folder, of a shipped name.

        Raises
        ------
        InputError
            If there is no such model, or a file of it is missing, altered or inconsistent.

        Examples
        --------
        >>> Model.load("apogee-dr17-library")
        Model('apogee-dr17-library': teff, logg, fe_h, c_fe, n_fe, alpha_m from 55 BP + 55 RP
        coefficients, bp_rp, j_h, g_rp, g_j, rp_j, rp_ks, h_ks)
        """
        return cls(**read_model(name_or_path))

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write ``model.json``, ``weights.safetensors`` and ``card.md``, all or none.

        Raises
        ------
        InputError
            If ``folder`` exists and ``overwrite`` is not given, or cannot be written.
        """
        write_model(self, Path(folder), overwrite)

    def __repr__(self) -> str:
        bp, rp = self.feature_set.widths
        inputs = ", ".join((f"{bp} BP + {rp} RP coefficients", *self.feature_set.auxiliary))
        estimate = ", unshrunk" if self.estimate == "unshrunk" else ""
        name = self.metadata.get("name", "")
        return f"Model({name!r}: {', '.join(self.names)} from {inputs}{estimate})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p><pre>{html.escape(self.card)}</pre>"

    @cached_property
    def inference(self) -> Inference:
        """The networks on features of stars: labels, variances and derivatives in scaled units."""
        sampling = self.recipe.scatter == "sampling" and len(self.networks) == 1
        passes = self.recipe.passes if sampling else 0
        return Inference(self.feature_set, self.scaling, self.networks, passes)

    def unshrunk(self) -> Model:
        """The same model, predicting without shrinkage (regression to the mean).

        See :mod:`xplabels.calibration.shrinkage`. :class:`InputError` if that was never fitted
        for it.
        """
        if self.unshrinking is None:
            raise InputError(
                "the model was trained before its shrinkage (regression to the mean) was corrected",
                remedy="train it again, or xplabels.fit_unshrinking(model, stars).save(FOLDER)",
            )
        return replace(self, estimate="unshrunk")

    def predict(
        self,
        stars: Stars | Any,
        progress: bool = False,
        correlations: bool = False,
        covariance: bool = False,
    ) -> Prediction:
        """Labels with errors of every star; NaN and a flag where there can be none.

        Parameters
        ----------
        stars
            Archive coefficients of the widths trained on or, for a model trained on sampled
            spectra, sampled flux; photometry may be missing. Or what :func:`xplabels.read` reads.
        progress
            Whether to show a bar.
        correlations, covariance
            Whether to give the correlations of each star's label errors, too (two names of one
            option): :meth:`~xplabels.core.prediction.Prediction.covariance` needs them.

        Raises
        ------
        InputError
            If the spectra are of another kind or width than the model's.

        Examples
        --------
        >>> from xplabels.synthetic import example_stars
        >>> model = Model.load("apogee-dr17-library")
        >>> prediction = model.predict(example_stars(3), covariance=True)
        >>> prediction["teff"].value.shape, prediction.covariance(["teff", "logg"]).shape
        ((3,), (3, 2, 2))
        """
        stars = stars if isinstance(stars, Stars) else read(stars)
        starts: Sequence[int] = range(0, max(len(stars), 1), BLOCK)
        if progress:
            from tqdm import tqdm

            starts = tqdm(starts, desc="predict", unit="block")
        both = correlations or covariance
        blocks = [self._predict(stars[slice(start, start + BLOCK)], both) for start in starts]
        prediction = stack(blocks)
        if self.estimate == "mean" or self.unshrinking is None:
            return prediction
        return self.unshrinking.apply(prediction, self.label_range)

    def of_common(self, labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of K labels [N, K] those that most training stars have."""
        return labels[:, self.common] if self.common else labels

    @property
    def common_names(self) -> tuple[str, ...]:
        """Of the labels that most training stars have."""
        return tuple(self.names[k] for k in self.common) or self.names

    def with_basis(self, basis: Basis) -> Model:
        """The same model for spectra in ``basis``, if they are as wide as it."""
        return replace(self, basis=basis)

    def basis_of(self, stars: Stars) -> Basis | None:
        """The basis that spectra are in if it is not the model's own.

        That of :meth:`with_basis`, else what GaiaXPy carries of these widths; InputError if there
        is neither.
        """
        spectra, own = stars.spectra, self.feature_set.widths
        if not isinstance(spectra, CoefficientSpectra):
            return None
        if self.basis is not None and spectra.widths == self.basis.widths:
            return self.basis
        if spectra.widths == own or 0 in spectra.widths:
            return None
        try:
            return gaiaxpy_basis(spectra.widths)
        except InputError as error:
            raise InputError(
                f"the spectra have {spectra.widths[0]} BP + {spectra.widths[1]} RP coefficients, "
                f"the model {own[0]} + {own[1]}, and no sampling matrix of theirs is at hand "
                f"({error.what})",
                where=stars.where,
                remedy=THREE_WAYS,
            ) from error

    def _in_own_basis(self, stars: Stars) -> Stars:
        basis = self.basis_of(stars)
        return stars if basis is None else converted(stars, basis, self._own_basis)

    @cached_property
    def _own_basis(self) -> Basis:
        projection = self.feature_set.projection
        if projection is None:
            return gaiaxpy_basis(self.feature_set.widths)
        return Basis(projection.wavelength, projection.design, projection.widths, "the model's")

    def usable(self, features: Features) -> NDArray[np.bool_]:
        """Which stars [N] have all that a prediction needs."""
        usable = np.isfinite(features.x[:, : self.feature_set.n_spectral]).all(axis=1)
        usable &= np.isfinite(features.errors).all(axis=1) & np.isfinite(features.divisor)
        usable &= (features.flags & int(UNUSABLE)) == 0
        return usable

    def _predict(self, stars: Stars, correlations: bool) -> Prediction:
        """One block of stars: physical units, recalibrated errors, and flags."""
        features = self.feature_set.compute(with_correlations(self._in_own_basis(stars)))
        usable = self.usable(features)
        # a copy costs as much as all else that is done to the features
        chosen = features if usable.all() else features[usable]
        inferred = self.inference.run(chosen, correlations)
        labels = inferred.labels.variances() if correlations else inferred.labels
        values = self.scaling.unscale_y(labels.mean)
        noise = self.scaling.scale_noise(self.feature_set.noise_levels(chosen))
        missing = self.feature_set.missing(chosen)
        common = self.of_common(labels.mean)
        calibration = self.calibration.for_stars(common, noise, missing)
        squares = calibration.shape.squares(common, noise)
        # rounding must not turn a tiny variance into a negative one
        negative = np.any(labels.input < 0, axis=1)
        variances = {
            "model": squares * np.maximum(labels.model, 0.0),
            "input": squares * np.maximum(labels.input, 0.0),
            "excess": squares * labels.excess,
        }
        inner, outer = calibration.half_widths(
            variances["model"] + variances["excess"], variances["input"]
        )
        found = np.isfinite(values).all(axis=1) & np.isfinite(inner).all(axis=1)
        undefined, (low, high) = np.zeros(values.shape, bool), self.label_range.T
        if self.support is not None:
            undefined[found] = ~self.support.defined(labels.mean[found], inner[found])
            # a rare label is not extrapolated; a flag would spoil the others
            rare = np.isin(self.names, self.common_names, invert=True)
            undefined |= rare & ((values < low) | (values > high))
            values[undefined] = np.nan
        # of a logarithmic label it depends on the value; the NaN of any label becomes its errors'
        scale = self.scaling.y_unit(values) + np.where(undefined, np.nan, 0.0)
        if self.forward is None:
            distance = self.domain.distance(inferred.x)
            far = distance > self.domain.threshold
            chisq = p_value = np.full(len(distance), np.nan)
            poor = np.zeros(len(distance), bool)
        else:
            chisq, p_value, distance, share = self.forward.score(chosen, common)
            far = share < self.forward.distance_threshold
            poor = p_value < self.forward.threshold
        with np.errstate(invalid="ignore"):
            # stars hotter than any trained on are predicted just inside the range
            reach = np.where(np.array(self.names) == "teff", scale * inner, 0.0)
            outside = np.any((values - reach < low) | (values + reach > high), axis=1)
        clamped = (labels.clamped & ~undefined).any(axis=1)
        noticed = (
            np.where(found & ~undefined.all(axis=1), 0, Flag.NO_PREDICTION)
            | np.where(far, Flag.OUT_OF_DOMAIN, 0)
            | np.where(poor, Flag.POOR_FIT, 0)
            | np.where(outside, Flag.LABEL_OUT_OF_RANGE, 0)
            | np.where(undefined.any(axis=1), Flag.LABEL_UNDEFINED, 0)
            | np.where(clamped | negative, Flag.VARIANCE_CLAMPED, 0)
        )
        rows = np.flatnonzero(usable)
        flags = features.flags | np.where(usable, 0, Flag.NO_PREDICTION).astype(np.uint32)
        flags[rows] |= noticed.astype(np.uint32)

        def of_all(array: NDArray[np.float64]) -> NDArray[np.float64]:
            """Of all stars [N, ...] from those that are usable; NaN without a prediction."""
            whole = np.full((len(stars), *array.shape[1:]), np.nan)
            whole[rows[found]] = array[found]
            return whole

        width = calibration.factor * scale
        parts = {f"errors_{part}": of_all(width * np.sqrt(variances[part])) for part in PARTS}
        total = np.sqrt(variances["model"] + variances["input"] + variances["excess"])
        packed = None
        if correlations:
            packed = packed_correlations(inferred.labels.covariance)
            first, second = np.tril_indices(len(self.names), -1)
            packed[undefined[:, first] | undefined[:, second]] = np.nan
        distances = np.full(len(stars), np.nan)
        distances[rows] = distance
        return Prediction(
            source_id=stars.source_id,
            names=self.names,
            values=of_all(values),
            errors=of_all(width * total),
            errors_95=of_all(scale * outer),
            domain_distance=distances,
            flags=flags,
            correlations=packed if packed is None else of_all(packed),
            joint_factors=self.calibration.joint,
            fit_chisq=of_all(chisq),
            fit_p_value=of_all(p_value),
            meta=self._meta(stars),
            **parts,
        )

    def _meta(self, stars: Stars) -> dict[str, Any]:
        notes = {"NOTES": "; ".join(stars.made)} if stars.made else {}
        if (basis := self.basis_of(stars)) is not None:
            notes |= {"BASIS": f"{basis.name} (sha256 {basis.sha256[:12]}), not the model's own"}
        return notes | {
            "MODEL": self.metadata.get("name", ""),
            "MODELSHA": self.metadata.get("sha256", ""),
            "VERSION": self.metadata.get("versions", {}).get("xplabels", ""),
            "SCATTER": self.recipe.scatter,
        }


def load_model(name_or_path: str | Path = DEFAULT_MODEL) -> Model:
    """The shipped model, one of a name that ships, or that of a folder (:meth:`Model.load`).

    Examples
    --------
    >>> load_model().metadata["name"]
    'apogee-dr17-library'
    """
    return Model.load(name_or_path)
