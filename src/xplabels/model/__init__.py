"""A trained model: features, scaling, networks, calibration and provenance, which predicts."""

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
"""Stars predicted at a time, which limits the memory; results do not depend on it."""

Estimate = Literal["mean", "unshrunk"]


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model.

    Attributes
    ----------
    names
        K labels.
    feature_set, scaling
        The inputs, and their training statistics.
    networks
        One network, or the members of an ensemble.
    recipe
        How it was trained; ``recipe.scatter`` names the kind of model variance.
    calibration, domain
        The calibration, fitted to stars that the network did not see; the domain, fitted to the
        training part.
    label_range
        Float64 [K, 2]: smallest and largest label trained on.
    metadata
        Provenance, as in ``model.json``.
    card
        Markdown: what the model is, what it was trained on, and its performance.
    unshrinking
        Corrects predictions for shrinkage (regression to the mean), fitted to the validation part;
        None for a model trained before there was such a correction.
    label_audit
        Training and validation stars with labels that are probably wrong, as CSV with the columns
        of :meth:`~xplabels.validation.audit.LabelAudit.to_arrow`; empty for a model trained before
        labels were audited.
    estimate
        What the model predicts: ``mean``, or ``unshrunk``, without the shrinkage.
    support
        For which stars each label is defined; None: for all that have a prediction.
    calibration_stars
        A sample of the stars to which the errors were calibrated, for
        :func:`~xplabels.model.refitting.check_errors`; None for a model trained before there was.
    forward
        The spectrum that the labels predict, and how well a star fits it; None: ``domain`` alone
        decides whether a star is unlike the training set, and noisy stars may seem so.
    common
        Columns of the labels that most training stars have, as functions of which errors are
        calibrated, fits judged and stars compared; empty: all.
    basis
        Basis of the spectra if it is not the model's own (:meth:`with_basis`); not saved.

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
        """Evaluates the networks: labels, variances and derivatives of stars, in scaled units."""
        sampling = self.recipe.scatter == "sampling" and len(self.networks) == 1
        passes = self.recipe.passes if sampling else 0
        return Inference(self.feature_set, self.scaling, self.networks, passes)

    def unshrunk(self) -> Model:
        """The same model, predicting without shrinkage (regression to the mean).

        See :mod:`xplabels.calibration.shrinkage`. Raises :class:`InputError` if the model has no
        such correction.
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
        """Labels of every star with their errors; NaN and a flag where none can be predicted.

        Parameters
        ----------
        stars
            Stars with archive coefficients of the widths trained on or, for a model trained on
            sampled spectra, with sampled flux; photometry may be missing. Or anything that
            :func:`xplabels.read` reads.
        progress
            Whether to show a bar.
        correlations, covariance
            Whether to include the correlations of each star's label errors, which
            :meth:`~xplabels.core.prediction.Prediction.covariance` needs (two names of one option).

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
        full = correlations or covariance
        blocks = [self._predict(stars[slice(start, start + BLOCK)], full) for start in starts]
        prediction = stack(blocks)
        if self.estimate == "mean" or self.unshrinking is None:
            return prediction
        return self.unshrinking.apply(prediction, self.label_range)

    def of_common(self, labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """The columns of labels [N, K] that most training stars have."""
        return labels[:, self.common] if self.common else labels

    @property
    def common_names(self) -> tuple[str, ...]:
        """Names of the labels that most training stars have."""
        return tuple(self.names[k] for k in self.common) or self.names

    def with_basis(self, basis: Basis) -> Model:
        """The same model; spectra of the widths of ``basis`` are taken to be in it."""
        return replace(self, basis=basis)

    def basis_of(self, stars: Stars) -> Basis | None:
        """The basis of the spectra; None if it is the model's own.

        It is that of :meth:`with_basis`, else the one of GaiaXPy with these widths. Raises
        InputError if there is neither.
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
        """Which stars [N] have all inputs that a prediction needs."""
        usable = np.isfinite(features.x[:, : self.feature_set.n_spectral]).all(axis=1)
        usable &= np.isfinite(features.errors).all(axis=1) & np.isfinite(features.divisor)
        usable &= (features.flags & int(UNUSABLE)) == 0
        return usable

    def _predict(self, stars: Stars, correlations: bool) -> Prediction:
        """One block of stars: physical units, recalibrated errors, and flags."""
        features = self.feature_set.compute(with_correlations(self._in_own_basis(stars)))
        usable = self.usable(features)
        # avoid a copy, which costs as much as all other operations on the features
        chosen = features if usable.all() else features[usable]
        inferred = self.inference.run(chosen, correlations)
        labels = inferred.labels.variances() if correlations else inferred.labels
        values = self.scaling.unscale_y(labels.mean)
        noise = self.scaling.scale_noise(self.feature_set.noise_levels(chosen))
        missing = self.feature_set.missing(chosen)
        common = self.of_common(labels.mean)
        calibration = self.calibration.for_stars(common, noise, missing)
        squares = calibration.shape.squares(common, noise)
        # rounding can make a tiny variance negative
        negative = np.any(labels.input < 0, axis=1)
        variances = {
            "model": squares * np.maximum(labels.model, 0.0),
            "input": squares * np.maximum(labels.input, 0.0),
            "excess": squares * labels.excess,
        }
        inner, outer = calibration.half_widths(
            variances["model"] + variances["excess"], variances["input"]
        )
        predicted = np.isfinite(values).all(axis=1) & np.isfinite(inner).all(axis=1)
        undefined, (low, high) = np.zeros(values.shape, bool), self.label_range.T
        if self.support is not None:
            undefined[predicted] = ~self.support.defined(labels.mean[predicted], inner[predicted])
            # a rare label is not extrapolated, nor flagged: a flag would concern all labels
            rare = np.isin(self.names, self.common_names, invert=True)
            undefined |= rare & ((values < low) | (values > high))
            values[undefined] = np.nan
        # depends on the value of a logarithmic label; makes the errors of undefined labels NaN
        scale = self.scaling.y_unit(values) + np.where(undefined, np.nan, 0.0)
        if self.forward is None:
            distance = self.domain.distance(inferred.x)
            out_of_domain = distance > self.domain.threshold
            chisq = p_value = np.full(len(distance), np.nan)
            poor = np.zeros(len(distance), bool)
        else:
            chisq, p_value, distance, distance_p_value = self.forward.score(chosen, common)
            out_of_domain = distance_p_value < self.forward.distance_threshold
            poor = p_value < self.forward.threshold
        with np.errstate(invalid="ignore"):
            # stars hotter than any trained on are predicted just inside the range of Teff
            margin = np.where(np.array(self.names) == "teff", scale * inner, 0.0)
            outside = np.any((values - margin < low) | (values + margin > high), axis=1)
        clamped = (labels.clamped & ~undefined).any(axis=1)
        new_flags = (
            np.where(predicted & ~undefined.all(axis=1), 0, Flag.NO_PREDICTION)
            | np.where(out_of_domain, Flag.OUT_OF_DOMAIN, 0)
            | np.where(poor, Flag.POOR_FIT, 0)
            | np.where(outside, Flag.LABEL_OUT_OF_RANGE, 0)
            | np.where(undefined.any(axis=1), Flag.LABEL_UNDEFINED, 0)
            | np.where(clamped | negative, Flag.VARIANCE_CLAMPED, 0)
        )
        rows = np.flatnonzero(usable)
        flags = features.flags | np.where(usable, 0, Flag.NO_PREDICTION).astype(np.uint32)
        flags[rows] |= new_flags.astype(np.uint32)

        def of_all(array: NDArray[np.float64]) -> NDArray[np.float64]:
            """Values [N, ...] for all stars from those of usable ones; NaN without a prediction."""
            values = np.full((len(stars), *array.shape[1:]), np.nan)
            values[rows[predicted]] = array[predicted]
            return values

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
    """The default model, another shipped one, or that of a folder (:meth:`Model.load`).

    Examples
    --------
    >>> load_model().metadata["name"]
    'apogee-dr17-library'
    """
    return Model.load(name_or_path)
