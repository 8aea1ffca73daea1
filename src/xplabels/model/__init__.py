"""Features, scaling, networks and provenance in one saved thing that predicts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.core.errors import InputError
from xplabels.core.flags import UNUSABLE, Flag
from xplabels.core.jit import available
from xplabels.core.prediction import Prediction, packed_correlations, stack
from xplabels.core.stars import Stars
from xplabels.features import Features
from xplabels.model.device import best_device, check_device
from xplabels.model.parts import Parts
from xplabels.model.storage import load_model, save_model, shipped
from xplabels.network import UncertainNetwork, dropout_passes, sample_variance
from xplabels.network.propagation import Block, Propagated, Propagation
from xplabels.recipes import Recipe

if TYPE_CHECKING:
    from xplabels.kernels.prediction import Kernels

__all__ = ["BLOCK", "COMPILED_FROM", "Engine", "Model", "propagate", "shipped"]

Engine = Literal["auto", "compiled", "torch"]

COMPILED_FROM = 1000
"""Fewer stars than these are predicted before compiled code is even loaded."""
BLOCK = 2048
"""Stars predicted at a time: bounds memory, and results do not depend on it."""


@dataclass(frozen=True)
class Model(Parts):
    """A trained model.

    Its attributes are those of :class:`~xplabels.model.parts.Parts`.
    """

    @classmethod
    def load(cls, name_or_path: str | Path) -> Model:
        """The model of a folder or, if there is no such folder, of a shipped name.

        Raises
        ------
        InputError
            If there is no such model, or a file of it is missing, altered or inconsistent.

        Examples
        --------
        >>> model = Model.load("apogee-dr17-library")
        >>> model.names
        ('teff', 'logg', 'fe_h', 'alpha_m')
        """
        return load_model(name_or_path, cls)

    @cached_property
    def kernels(self) -> Kernels:
        """Arrays and compiled code that predict; needs the extra ``fast``."""
        from xplabels.kernels.prediction import Kernels

        return Kernels(self.feature_set, self.scaling, self.networks)

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write ``model.json``, ``weights.safetensors`` and ``card.md``, all or none.

        Raises
        ------
        InputError
            If ``folder`` exists and ``overwrite`` is not given, or cannot be written.
        """
        save_model(self, Path(folder), overwrite)

    def unshrunk(self) -> Model:
        """The same model, predicting without the trend to the mean.

        See :mod:`xplabels.calibration.shrinkage`. :class:`InputError` if that was never fitted
        for it.
        """
        if self.unshrinking is None:
            raise InputError(
                "the model was trained before the trend to the mean could be taken out",
                remedy="train it again, or xplabels.fit_unshrinking(model, stars).save(FOLDER)",
            )
        return replace(self, estimate="unshrunk")

    def predict(
        self,
        stars: Stars,
        progress: bool = False,
        correlations: bool = False,
        engine: Engine = "auto",
        device: str | None = None,
    ) -> Prediction:
        """Labels with errors of every star; NaN and a flag where there can be none.

        Parameters
        ----------
        stars
            Archive coefficients of the widths trained on or, for a model trained on sampled
            spectra, sampled flux; photometry may be missing.
        progress
            Whether to show a bar.
        correlations
            Whether to give the correlations of each star's label errors, too.
        engine
            ``compiled`` takes the kernels (:mod:`xplabels.kernels`; extra ``fast``), ``torch`` the
            path that training takes, ``auto`` the kernels where they can be had and pay, unless
            there is a GPU. They agree.
        device
            Where torch computes: ``cpu``, ``cuda``; by default a GPU if there is one.

        Raises
        ------
        InputError
            If the spectra are of another kind or width than the model's; if ``engine`` is unknown,
            or is ``compiled`` where that is not possible; if ``device`` cannot be used.

        Examples
        --------
        >>> from xplabels.synthetic import example_stars
        >>> model = Model.load("apogee-dr17-library")
        >>> prediction = model.predict(example_stars(3))
        >>> prediction.values.shape
        (3, 4)
        """
        from tqdm import tqdm

        device = best_device() if device is None else check_device(device)
        kernels = _kernels(self, engine, device, len(stars))
        predictor = _Predictor(self, correlations, kernels, device)
        starts = range(0, len(stars), BLOCK)
        blocks = [
            predictor.predict(stars[slice(start, start + BLOCK)])
            for start in tqdm(starts, desc="predict", unit="block", disable=not progress)
        ]
        prediction = stack(blocks) if blocks else predictor.predict(stars)
        if self.estimate == "mean":
            return prediction
        return cast(ShrinkageCorrection, self.unshrinking).apply(prediction, self.label_range)

    def engine_for(self, stars: int) -> Engine:
        """The engine that ``auto`` takes for so many stars, where no device is named.

        Blocks of one catalogue should all be predicted by one, whatever their lengths.
        """
        return "torch" if _kernels(self, "auto", best_device(), stars) is None else "compiled"


class _Predictor:
    """A model's tensors, prepared once for many blocks."""

    def __init__(
        self, model: Model, correlations: bool, kernels: Kernels | None, device: str
    ) -> None:
        self.model, self.kernels, self.device = model, kernels, device
        self.correlations = correlations
        self.networks = model.networks
        self.propagation: Propagation | None = None
        if kernels is None:
            masks = model.networks[0].architecture.masks > 0
            self.propagation = Propagation(
                model.feature_set, model.scaling, masks, torch.float64, device
            )
            if device != "cpu":
                self.networks = tuple(deepcopy(n).to(device) for n in model.networks)

    def predict(self, stars: Stars) -> Prediction:
        """One block of stars."""
        model = self.model
        features = model.feature_set.compute(stars)
        n = model.feature_set.n_spectral
        usable = np.isfinite(features.x[:, :n]).all(axis=1)
        usable &= np.isfinite(features.errors).all(axis=1) & np.isfinite(features.divisor)
        usable &= (features.flags & int(UNUSABLE)) == 0
        shape = (len(stars), len(model.names))
        arrays = {name: np.full(shape, np.nan) for name in ("labels", "input", "model", "excess")}
        distance = np.full(len(stars), np.nan)
        clamped = np.zeros(len(stars), bool)
        correlations = None
        if self.correlations:
            k = len(model.names)
            correlations = np.full((len(stars), k * (k - 1) // 2), np.nan)
        if usable.any():
            # a copy costs as much as all else that is done to the features
            chosen = features if usable.all() else features[usable]
            out, x = self._propagate(chosen)
            if correlations is not None:
                correlations[usable] = packed_correlations(out.covariance().numpy())
                out = out.variances()
            noise = model.scaling.scale_noise(model.feature_set.noise_levels(chosen))
            squares = model.calibration.shape.squares(out.labels.numpy(), noise)
            arrays["labels"][usable] = out.labels.numpy()
            for part in ("input", "model", "excess"):
                arrays[part][usable] = squares * getattr(out, part).numpy()
            distance[usable] = model.domain.distance(x)
            clamped[usable] = out.clamped.numpy()
        return self._assemble(stars, features.flags, arrays, distance, clamped, correlations)

    def _propagate(self, features: Features) -> tuple[Propagated, NDArray[np.float64]]:
        """What the networks say, and the completed inputs [N, F]."""
        if self.kernels is not None:
            return self.kernels.run(features, self.correlations)
        model, propagation = self.model, cast(Propagation, self.propagation)
        block = Block.of(features, model.feature_set, model.scaling, torch.float64, self.device)
        with torch.no_grad():
            out = propagate(self.networks, propagation, block, model.recipe, self.correlations)
            x = propagation.network_input(block)[:, : features.x.shape[1]]
        return Propagated(*(part.cpu() for part in out)), x.cpu().numpy()

    def _assemble(
        self, stars: Stars, flags: NDArray[np.uint32], arrays: dict[str, NDArray[np.float64]],
        distance: NDArray[np.float64], clamped: NDArray[np.bool_],
        correlations: NDArray[np.float64] | None,
    ) -> Prediction:  # fmt: skip
        """Physical units, recalibrated errors, and flags."""
        model = self.model
        scale = model.scaling.y_scale
        values = model.scaling.y_mean + scale * arrays["labels"]
        # rounding must not turn a tiny variance into a negative one
        variances = {part: arrays[part] for part in ("model", "input", "excess")}
        negative = (np.concatenate(list(variances.values()), axis=1) < 0).any(axis=1)
        variances = {part: np.maximum(v, 0.0) for part, v in variances.items()}
        total = np.sqrt(np.sum(list(variances.values()), axis=0))
        with np.errstate(invalid="ignore"):
            low, high = model.label_range.T
            outside = ((values < low) | (values > high)).any(axis=1)
            far = distance > model.domain.threshold
        lost = ~(np.isfinite(values) & np.isfinite(total)).all(axis=1)
        values[lost] = np.nan
        for bit, where in (
            (Flag.NO_PREDICTION, lost),
            (Flag.OUT_OF_DOMAIN, far),
            (Flag.LABEL_OUT_OF_RANGE, outside),
            (Flag.VARIANCE_CLAMPED, clamped | negative),
        ):
            flags = flags | np.where(where, bit, 0).astype(np.uint32)
        width = model.calibration.factor * scale
        parts = {
            f"errors_{part}": np.where(lost[:, None], np.nan, width * np.sqrt(variance))
            for part, variance in variances.items()
        }
        _, outer = model.calibration.half_widths(
            variances["model"] + variances["excess"], variances["input"]
        )
        total[lost] = outer[lost] = np.nan
        if correlations is not None:
            correlations[lost] = np.nan
        return Prediction(
            source_id=stars.source_id,
            names=model.names,
            values=values,
            errors=width * total,
            errors_95=scale * outer,
            domain_distance=distance,
            flags=flags,
            correlations=correlations,
            joint_factor=model.calibration.joint,
            meta=self._meta(stars),
            **parts,
        )

    def _meta(self, stars: Stars) -> dict[str, Any]:
        metadata = self.model.metadata
        notes = {"NOTES": "; ".join(stars.made)} if stars.made else {}
        return notes | {
            "MODEL": metadata.get("name", ""),
            "MODELSHA": metadata.get("sha256", ""),
            "VERSION": metadata.get("versions", {}).get("xplabels", ""),
            "SCATTER": self.model.recipe.scatter,
        }


def _kernels(model: Model, engine: Engine, device: str, stars: int) -> Kernels | None:
    """The model's kernels, or None where the torch path is to be taken."""
    if engine not in get_args(Engine):
        raise InputError(
            f"unknown engine {engine!r}", remedy=f"choose among {', '.join(get_args(Engine))}"
        )
    hindrance = ""
    if not available():
        hindrance = "numba is not installed (extra 'fast'), or this machine is big-endian"
    elif model.recipe.scatter == "sampling" and len(model.networks) == 1:
        hindrance = "this model's error is sampled by dropout passes, which torch draws"
    if engine == "compiled":
        if hindrance:
            raise InputError(
                f"the compiled engine cannot be had: {hindrance}", remedy="take 'torch' or 'auto'"
            )
        return model.kernels
    if engine == "torch" or device != "cpu" or hindrance or stars < COMPILED_FROM:
        return None
    return model.kernels


def propagate(
    networks: tuple[UncertainNetwork, ...],
    propagation: Propagation,
    block: Block,
    recipe: Recipe,
    full: bool = False,
) -> Propagated:
    """Labels and variances of a block from one network, its dropout passes, or an ensemble.

    ``full``: with the covariances of the labels.
    """
    if len(networks) > 1:
        return _ensemble(networks, propagation, block, full)
    out = propagation.run(networks[0], block, full=full)
    if recipe.scatter != "sampling":
        return out
    network = networks[0]
    x = propagation.network_input(block).to(network.out.weight.dtype)
    centre, scatter = dropout_passes(network, x, recipe.passes, full=full)
    return out._replace(labels=centre.to(out.labels.dtype), model=scatter.to(out.labels.dtype))


def _ensemble(
    networks: tuple[UncertainNetwork, ...], propagation: Propagation, block: Block, full: bool
) -> Propagated:
    """Mean label, mean Jacobian and mean excess; the spread of the members is the model part."""
    x = propagation.network_input(block)
    outputs = [propagation.outputs(network, x, jacobian=True) for network in networks]
    labels = torch.stack([out.labels for out in outputs])
    jacobian = torch.stack([_present(out.jacobian) for out in outputs]).mean(dim=0)
    return Propagated(
        labels.mean(dim=0),
        propagation.input_variance(jacobian, block, full),
        sample_variance(labels, full),
        torch.stack([out.excess for out in outputs]).mean(dim=0),
        torch.stack([out.clamped for out in outputs]).any(dim=0),
    )


def _present(jacobian: torch.Tensor | None) -> torch.Tensor:
    if jacobian is None:
        raise ValueError("the Jacobian was not asked for")
    return jacobian
