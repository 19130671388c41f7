"""Draws one example of every attack: ``python -m tools.docs.attack_pictures [NAME...]``.

The picture, the change and the adversarial picture, of a digit that the attack fools `maxout` on.
Each is computed once and stored in ``docs/attack-pictures/``, because it shows what an attack does
and is no result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gibbon import evaluate
from gibbon.attacks import ATTACKS
from gibbon.core.threat import Norm
from gibbon.records.gallery import Gallery
from gibbon.report.content.chart_data.gallery import galleries
from gibbon.report.content.parts.lookup import RunLookup

FOLDER = Path("docs/attack-pictures")
MODEL = "maxout"
EXAMPLES = 6  # that are attacked, of which one is shown
BUDGETS = {Norm.LINF: "0.2", Norm.L2: "2.5", Norm.L1: "20"}
# A picture needs no more; the defaults take minutes.
PARAMETERS: dict[str, dict[str, Any]] = {
    "cw": {"steps": 200, "searches": 4, "init_constant": 1.0, "step_size": 0.05},
    "fab": {"steps": 30},
    "fab-t": {"steps": 20, "target_classes": 3},
    "square": {"queries": 500},
    "worst-of": {"attacks": ["fgsm", "pgd"]},
    "autoattack": {"steps": 20, "target_classes": 3, "queries": 100},
    "autoattack-l1": {"steps": 20, "target_classes": 3, "boundary_classes": 3, "queries": 100},
}
TIMES, GAP, WHITE = 3, 2, 255


def shown_example(gallery: Gallery) -> int:
    """Returns the example to show: the first that is misclassified, else the first."""
    wrong = np.flatnonzero((gallery.after != gallery.label) & gallery.valid)
    return int(wrong[0]) if len(wrong) else 0


def sheet(gallery: Gallery) -> Image.Image:
    """Returns picture, change and adversarial picture side by side, in grey, enlarged."""
    place = shown_example(gallery)
    tiles = [picture[0] for picture in gallery.pictures(place)]
    side = tiles[0].shape[0]
    pixels = np.full((side, 3 * side + 2 * GAP), WHITE, np.uint8)
    for column, tile in enumerate(tiles):
        left = column * (side + GAP)
        pixels[:, left : left + side] = tile
    return Image.fromarray(pixels.repeat(TIMES, axis=0).repeat(TIMES, axis=1)).quantize(16)


def draw(name: str, folder: Path) -> Path:
    """Attacks a few digits by an attack, and writes the picture of one of them."""
    norm = ATTACKS.load(name).norms[0]
    found = evaluate(
        MODEL,
        "mnist",
        attack={"name": name, **PARAMETERS.get(name, {})},
        norm=norm,
        epsilon=BUDGETS[norm],
        limit=EXAMPLES,
        pictures=True,
        examination=False,
        certify="none",
        device="cpu",
    )
    with found.files.opened() as run:
        stored = [each.gallery for each in galleries(RunLookup(found.record), run)]
    (gallery,) = (each for each in stored if each is not None)
    file = folder / f"{name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    sheet(gallery).save(file, optimize=True)
    return file


def main(words: Sequence[str] | None = None) -> int:
    """Draws the named attacks, or those that have no picture yet; returns the exit code."""
    named = sys.argv[1:] if words is None else list(words)
    ours = [entry.name for entry in ATTACKS.entries() if entry.origin == "gibbon"]
    for name in named or [each for each in ours if not (FOLDER / f"{each}.png").exists()]:
        sys.stdout.write(f"{draw(name, FOLDER)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
