"""Where the arrays of bossbrain's network files lie, for src/xplabels/giants/emulator.py.

    python tools/emulator_layout.py

The files are pickles, which could run anything. Here their opcodes are listed without being
executed (pickletools), and the nested torch files are read as tensors only. What is printed, the
SHA-256 of each file and the offset, type and shape of each array, is all that the package uses.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
from importlib.metadata import distribution
from pathlib import Path

import torch

from xplabels.giants.emulator import FILES, LABELS, LAYOUT, PACKAGE

TORCH_FILE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the nested files begin."""


def layout(content: bytes) -> dict[str, tuple[int, str, tuple[int, ...]]]:
    """Array -> byte offset, type and shape: weights and biases by layer, then the two ranges."""
    found: dict[str, tuple[int, str, tuple[int, ...]]] = {}
    inputs, names = len(LABELS), iter(("lower", "upper"))
    for _, payload, _ in pickletools.genops(content):
        if not isinstance(payload, bytes):
            continue
        if payload.startswith(TORCH_FILE):
            storage = torch.load(io.BytesIO(payload), weights_only=True).untyped()
            numbers, (layer, is_bias) = storage.nbytes() // 4, divmod(len(found), 2)
            shape = (numbers,) if is_bias else (numbers // inputs, inputs)
            inputs = shape[0]
            start = content.index(bytes(storage.tolist()))
            found[f"{'bias' if is_bias else 'weight'}.{layer}"] = (start, "<f4", shape)
        elif len(payload) == 8 * len(LABELS):
            found[next(names)] = (content.index(payload), "<f8", (len(LABELS),))
    return found


def main() -> None:
    for name in FILES:
        content = Path(
            str(distribution(PACKAGE).locate_file(f"{PACKAGE}/data/{name}"))
        ).read_bytes()
        print(name, hashlib.sha256(content).hexdigest())
        print("the layout in use" if layout(content) == LAYOUT else layout(content))


if __name__ == "__main__":
    main()
