"""Train the model that ships, on the real library's training part, and test it.

    python tools/ship_model.py [--checkpoint FOLDER] [--device cuda]
    python tools/ship_model.py --rates benchmarks/results/domain.md

Writes src/xplabels/models/apogee-dr17-library, whose card holds the scores of the test part. They
are for reporting: choose on the validation part. The second command adds to the card of the model
that ships what benchmarks/domain.py found.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from xplabels.api.demo import LABELS, TEST_FRACTION
from xplabels.core.split import part_mask
from xplabels.model import Model
from xplabels.model.card import write_card
from xplabels.recipes import load_recipe
from xplabels.surveys.library import read_library
from xplabels.training import train
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
    model = train(
        stars, LABELS, recipe,
        seed=SEED, test_fraction=TEST_FRACTION, checkpoint=arguments.checkpoint,
        name=NAME, device=arguments.device,
    )  # fmt: skip
    model.metadata["command"] = "python tools/ship_model.py"
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
