"""Train the model that ships, on the real library's training part, and test it.

    python tools/ship_model.py --cn ../shared/data/cn_labels.csv [--checkpoint FOLDER]
    python tools/ship_model.py --rates benchmarks/results/domain.md

Writes src/xplabels/models/apogee-dr17-library, whose card holds the scores of the test part. They
are for reporting: choose on the validation part. Without --cn the model has four labels. The
second command adds to the card of the model that ships what benchmarks/domain.py found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cn_labels import ORDER, with_cn
from xplabels.api.demo import LABELS, TEST_FRACTION
from xplabels.core.split import part_mask
from xplabels.model import Model
from xplabels.model.card import write_card
from xplabels.recipes import load_recipe
from xplabels.surveys.library import read_library
from xplabels.training import cross_fitted, train
from xplabels.validation import score_prediction
from xplabels.validation.finding import as_json

NAME = "apogee-dr17-library"
SEED = 1
EPOCHS = 120
"""A fifth more than the demo takes: it is trained once and used often."""
FOLDER = Path(__file__).parents[1] / "src" / "xplabels" / "models" / NAME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("ship_model.partial"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cn", type=Path, help="table of C and N, see cn_labels.py")
    parser.add_argument("--rates", type=Path)
    arguments = parser.parse_args()
    if arguments.rates is not None:
        model = Model.load(FOLDER)
        model.metadata["rates"] = arguments.rates.read_text(encoding="utf-8")
        card = write_card(model, model.metadata["test"])
        replace(model, card=card).save(FOLDER, overwrite=True)
        return
    stars = read_library()
    recipe = replace(load_recipe("default"), epochs=EPOCHS)
    run: dict[str, Any] = {
        "seed": SEED, "test_fraction": TEST_FRACTION, "checkpoint": arguments.checkpoint,
        "device": arguments.device,
    }  # fmt: skip
    labels: Sequence[str] = LABELS
    command, scale = "python tools/ship_model.py", {}
    if arguments.cn is not None:
        labels, command = ORDER, f"{command} --cn {arguments.cn.name}"
        stars, offsets, errors = with_cn(
            stars, arguments.cn, lambda six: cross_fitted(six, ORDER, recipe, **run)
        )
        scale = {"offsets": [asdict(offset) for offset in offsets], "errors": errors}
    model = train(stars, labels, recipe, name=NAME, **run)
    model.metadata["scale_of_c_and_n"] = as_json(scale)
    model.metadata["command"] = command
    FOLDER.parent.mkdir(exist_ok=True)
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    if test.labels is None:
        raise SystemExit("the library has no labels")
    found = score_prediction(model.predict(test), test.labels)
    groups = {name: as_json(found.groups[name].to_dict()) for name in found.groups}
    model.metadata["test"] = {
        "n": groups["all"]["n"],
        "labels": groups["all"]["labels"],
        "rightly_labelled": groups["rightly_labelled"]["labels"],
    }
    finished: Model = replace(model, card=write_card(model, model.metadata["test"]))
    finished.save(FOLDER, overwrite=True)
    print(finished.card)


if __name__ == "__main__":
    main()
