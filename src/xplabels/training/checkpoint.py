"""Training states that survive a kill: tensors as safetensors, the rest as JSON.

A checkpoint belongs to one manifest (data, recipe, seed). State is written whole or not at all,
and nothing that is read back can execute code.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_ours, whole_file

CHECKPOINT_FILES = ("manifest.json", "*.safetensors", ".*.partial.*")
"""All that the folder of an unfinished training may hold; anything else is the user's."""


class Checkpoint:
    """A folder with one state per stage of a training run.

    Parameters
    ----------
    folder
        Where states lie; None: nothing is kept.
    manifest
        What the run is made of.
    overwrite
        Whether the states of a run with another manifest are removed; else they are an error.

    Raises
    ------
    InputError
        If the folder belongs to another run, or holds something else.
    """

    def __init__(
        self, folder: Path | None, manifest: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.folder = folder
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot keep checkpoints: {error}", where=folder) from None
        path = folder / "manifest.json"
        if path.exists():
            check_ours(folder, CHECKPOINT_FILES)
        foreign = (entry for entry in folder.iterdir() if ".partial." not in entry.name)
        if not path.exists() and any(foreign):
            # it would be removed in the end
            raise InputError("holds something else than checkpoints", where=folder,
                             remedy="move it, or choose another output")  # fmt: skip
        text = json.dumps(manifest, indent=1, sort_keys=True)
        another = path.exists() and path.read_text(encoding="utf-8") != text
        if another and overwrite:
            for state in folder.glob("*.safetensors"):
                state.unlink()
        elif another:
            raise InputError(
                "holds the checkpoints of another run (other stars, recipe, labels or seed)",
                where=folder,
                remedy="give the arguments of that run to finish it, or --overwrite to drop it",
            )
        with whole_file(path, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")

    def load(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of ``stage``, or None if it was never saved.

        Raises
        ------
        InputError
            If its file is damaged.
        """
        if self.folder is None:
            return None
        path = self.folder / f"{stage}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(str(path), framework="pt") as state:
                tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118
                facts: dict[str, Any] = json.loads(state.metadata()["facts"])
        except SafetensorError as error:
            raise InputError(
                f"is a damaged checkpoint ({error})",
                where=path,
                remedy="remove it: its stage is done anew",
            ) from None
        return tensors, facts

    def save(self, stage: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the state of ``stage``."""
        if self.folder is None:
            return
        path = self.folder / f"{stage}.safetensors"
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with whole_file(path, overwrite=True) as partial:
            save_file(whole, str(partial), metadata={"facts": json.dumps(facts)})

    def remove(self) -> None:
        """Delete the folder: the run is finished."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
