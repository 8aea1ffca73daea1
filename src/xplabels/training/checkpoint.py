"""Training states that survive a kill: tensors as safetensors, the rest as JSON.

A state is written whole or not at all, and nothing that is read back can execute code.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from xplabels.io.atomic import LAST_WORD, whole_file
from xplabels.io.files import whole
from xplabels.io.job import open_partial

CHECKPOINT_FILES = ("manifest.json", LAST_WORD, "*.safetensors", ".*.partial.*")
"""All that the folder of an unfinished training may hold."""

History = list[dict[str, float]]


class Checkpoint:
    """A folder with the last state of each stage of one training run; None keeps nothing.

    The ``manifest`` says what the run is made of: data, recipe, seed. ``overwrite`` removes the
    states of a run with another one. :class:`InputError` if the folder belongs to another run, or
    holds something else.
    """

    def __init__(
        self, folder: Path | None, manifest: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.folder = folder
        if folder is None:
            return
        open_partial(folder, "manifest.json", manifest, CHECKPOINT_FILES, overwrite)

    def save(
        self, stage: str, network: nn.Module, optimiser: torch.optim.Optimizer, history: History
    ) -> None:
        """Replace the state of ``stage``, that of torch's random generators included."""
        if self.folder is None:
            return
        tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        # not by safetensors itself, which would raise an error of its own on a full disk
        content = save(kept, metadata={"history": json.dumps(history)})
        with whole_file(self.folder / f"{stage}.safetensors", overwrite=True) as partial:
            partial.write_bytes(content)

    def restore(self, stage: str, network: nn.Module, optimiser: torch.optim.Optimizer) -> History:
        """Bring back the last state of ``stage``: its history, empty if it never was saved."""
        path = Path() if self.folder is None else self.folder / f"{stage}.safetensors"
        if not path.is_file():
            return []
        with (
            whole(path, "checkpoint", "remove it: its stage is done anew"),
            safe_open(str(path), framework="pt") as file,
        ):
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history: History = json.loads(file.metadata()["history"])
        weights: dict[str, Tensor] = {}
        moments = defaultdict[int, dict[str, Tensor]](dict)
        for name, tensor in tensors.items():
            match name.split(".", 2):
                case ["network", *_]:
                    weights[name.removeprefix("network.")] = tensor
                case ["optimiser", number, key]:
                    moments[int(number)][key] = tensor
        network.load_state_dict(weights)
        optimiser.load_state_dict(optimiser.state_dict() | {"state": dict(moments)})
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return history
