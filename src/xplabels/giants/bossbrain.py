"""The networks that the package ``bossbrain`` carries: read safely, kept as plain arrays.

Importing the package needs others that it does not declare, so only its network files are read.
They are pickles, which could run anything: they go through an unpickler that admits an explicit
list of names and nothing else. Afterwards the arrays come from a safetensors file in the user's
cache folder.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.giants.emulator import LABELS, WAVELENGTH, Emulator, Network
from xplabels.io.atomic import whole_file

DISTRIBUTION = "bossbrain"
VERSION = "1.0.12"
FILES = ("ann_22pars_3500-4200.pkl", "ann_22pars_4000-5000.pkl", "ann_22pars_4900-6000.pkl")
REMEDY = "pip install 'xplabels[synthetic]'"
REINSTALL = f"pip install --force-reinstall --no-deps {DISTRIBUTION}=={VERSION}"


def load_emulator(cache: Path | None = None) -> Emulator:
    """The three emulators, from the cache or, the first time, from the installed package.

    Parameters
    ----------
    cache
        Folder of the safetensors file; left out: the user's cache folder.

    Raises
    ------
    InputError
        If ``bossbrain`` is not installed in the version wanted, or a file of it is damaged.
    """
    folder = _user_cache() if cache is None else cache
    path = folder / f"{DISTRIBUTION}-{VERSION}.safetensors"
    networks = _read_cache(path)
    if networks is None:
        networks = tuple(read_network(file) for file in _package_files())
        # a cache that cannot be written costs time, not the result
        with contextlib.suppress(OSError, InputError):
            _write_cache(path, networks)
    return Emulator(WAVELENGTH, networks)


def read_network(path: Path) -> Network:
    """One network of the package's pickle.

    Raises
    ------
    InputError
        If the file is damaged, names anything that is not on the list, or is no such network.
    """
    try:
        with path.open("rb") as file:
            state = _NetworkUnpickler(file).load().state
        layers = state["model"].state["_modules"]["features"].state["_modules"]
        dense = [layer.state["_parameters"] for name, layer in layers.items() if int(name) % 2 == 0]
        network = Network(
            np.asarray(state["xmin"], np.float64),
            np.asarray(state["xmax"], np.float64),
            tuple(np.asarray(layer["weight"], np.float32) for layer in dense),
            tuple(np.asarray(layer["bias"], np.float32) for layer in dense),
        )
        names = tuple(state["label_names"])
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"is no network of {DISTRIBUTION} {VERSION} ({type(error).__name__}: {error})",
            where=path,
            remedy=REINSTALL,
        ) from error
    if names != LABELS:
        raise InputError("its labels are not those expected", where=path, remedy=REMEDY)
    _check(network, path)
    return network


def _check(network: Network, where: Path) -> None:
    """Whether layers fit together and numbers are finite."""
    shapes = [weight.shape for weight in network.weights]
    chained = [inputs for _, inputs in shapes[1:]] == [outputs for outputs, _ in shapes[:-1]]
    ends = bool(shapes) and shapes[0][1] == len(LABELS) and shapes[-1][0] == len(WAVELENGTH)
    biases = [bias.shape for bias in network.biases] == [(outputs,) for outputs, _ in shapes]
    arrays: list[NDArray[Any]] = [network.lower, network.upper, *network.weights, *network.biases]
    finite = all(np.isfinite(array).all() for array in arrays)
    ranges = network.lower.shape == network.upper.shape == (len(LABELS),)
    if not (chained and ends and biases and finite and ranges):
        raise InputError(
            f"its layers {shapes} do not fit together or hold numbers that are not finite",
            where=where,
            remedy=REINSTALL,
        )


class _Stand:
    """Stands in for an object of a class that is not imported: it only holds its state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _weights_only(data: bytes) -> Any:
    """A nested torch file: tensors and nothing else."""
    import torch

    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _tensor(*arguments: Any) -> Any:
    from torch._utils import _rebuild_tensor_v2

    return _rebuild_tensor_v2(*arguments)


def _parameter(data: Any, *_: Any) -> Any:
    return data.numpy().copy()


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"an array was expected, not {kind!r}")
    return np.ndarray(shape, np.dtype(code.decode()))


def _filled_array(make: Any, args: Any, state: Any, *_: Any) -> NDArray[Any]:
    if make is not _empty_array:
        raise pickle.UnpicklingError("arrays are made in one way only")
    array: NDArray[Any] = _empty_array(*args)
    array.__setstate__(state)  # an array's own: shape, type and bytes
    return array


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError("a number was expected")
    return np.frombuffer(data, dtype, count=1)[0]


ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dill._dill", "_create_array"): _filled_array,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("theborg.emulator", "Emulator"): _Stand,
    ("theborg.emulator", "MultiEmulatorModel"): _Stand,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.nn.modules.activation", "LeakyReLU"): _Stand,
    ("torch.nn.modules.container", "Sequential"): _Stand,
    ("torch.nn.modules.linear", "Linear"): _Stand,
    ("torch.storage", "_load_from_bytes"): _weights_only,
}
"""Every name that the network files may use, and what stands for it here."""


class _NetworkUnpickler(pickle.Unpickler):
    """Reads the network files and nothing that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None


def _package_files() -> list[Path]:
    """The network files of the installed package.

    Raises
    ------
    InputError
        If the package, the version or a file is not there.
    """
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise InputError(
            f"the spectrum emulators are not installed (package {DISTRIBUTION})", remedy=REMEDY
        ) from None
    if installed.version != VERSION:
        raise InputError(
            f"{DISTRIBUTION} {installed.version} is installed, {VERSION} is wanted", remedy=REMEDY
        )
    paths = [Path(str(installed.locate_file(f"{DISTRIBUTION}/data/{name}"))) for name in FILES]
    for path in paths:
        if not path.is_file():
            raise InputError(
                "is absent from the installed package",
                where=path,
                remedy=REINSTALL,
            )
    return paths


def _user_cache() -> Path:
    try:
        from platformdirs import user_cache_path
    except ImportError:
        raise InputError("platformdirs is not installed", remedy=REMEDY) from None
    return user_cache_path("xplabels")


def _write_cache(path: Path, networks: Sequence[Network]) -> None:
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {}
    for number, network in enumerate(networks):
        tensors |= {f"{number}.lower": network.lower, f"{number}.upper": network.upper}
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            tensors |= {f"{number}.weight.{layer}": weight, f"{number}.bias.{layer}": bias}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as temporary:
        save_file(tensors, temporary)


def _read_cache(path: Path) -> tuple[Network, ...] | None:
    """The cached networks; None if there are none, or if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        networks = []
        for number in range(len(FILES)):
            layers = range(sum(name.startswith(f"{number}.weight.") for name in tensors))
            network = Network(
                tensors[f"{number}.lower"],
                tensors[f"{number}.upper"],
                tuple(tensors[f"{number}.weight.{layer}"] for layer in layers),
                tuple(tensors[f"{number}.bias.{layer}"] for layer in layers),
            )
            _check(network, path)
            networks.append(network)
    except (OSError, SafetensorError, KeyError, InputError, ValueError):
        return None
    return tuple(networks)
