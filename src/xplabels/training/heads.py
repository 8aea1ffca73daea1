"""Labels that few stars have: last layers on the hidden layers of a network for the others.

Thousands of stars with common labels teach a network what a spectrum holds; a rare label then is a
linear function of what all its hidden layers hold, which hundreds of stars determine (Evci et al.
2022, ICML, PMLR 162, 6009: the last layer alone has lost what its own labels do not need). The
network stays as it is, and with it the common labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.inference.network import Perceptron
from xplabels.network import UncertainNetwork


def heads_on(network: UncertainNetwork, labels: int) -> UncertainNetwork:
    """A network with the hidden layers of ``network``, which do not train, for other labels.

    Its last layer reads all of them and begins with the labels' mean, whatever the star.
    """
    deep = len(network.hidden) > 1
    architecture = replace(network.architecture, labels=labels, skip=deep)
    heads = UncertainNetwork(architecture, network.input_scale)
    heads.hidden, heads.log_flux = network.hidden, network.log_flux
    heads.to(network.out.weight.device)
    for parameter in heads.hidden.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        for name, tensor in heads.named_parameters():
            if not name.startswith("hidden"):
                tensor.zero_()
    return heads


def joined(
    network: UncertainNetwork, heads: UncertainNetwork, sparse: NDArray[np.bool_]
) -> Perceptron:
    """One network of all K labels, of which ``heads`` gives those that are ``sparse`` [K]."""
    one, other = network.to_perceptron(), heads.to_perceptron()
    architecture = replace(other.architecture, labels=len(sparse))
    rows = np.tile(sparse, architecture.outputs // len(sparse))
    arrays = dict(one.arrays)
    for name in other.arrays.keys() & {"out.weight", "out.bias", "skip.weight"}:
        whole = np.zeros(architecture.shapes()[name], one.dtype)
        whole[rows] = other.arrays[name]
        if name in one.arrays:
            whole[~rows] = one.arrays[name]
        arrays[name] = whole
    return Perceptron(architecture, arrays)
