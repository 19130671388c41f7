"""Ships trained weights: ``python -m gibbon_zoo [--card-only] MODEL FOLDER [FOLDER ...]``.

Each folder holds one training of the model (``train MODEL --seed S --output FOLDER``).  The weights
of the first are shipped; the card also lists the others, by one recipe with different seeds, with
mean and deviation over all of them.  With ``--card-only`` only the card is shipped, as a record of
the trainings, since the weights are large.
"""

from __future__ import annotations

import sys

from gibbon.core.errors import RequestError
from gibbon.core.reading import expanded
from gibbon_zoo.zoo import publish

CARD_ONLY = "--card-only"


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0, or 2 if the request was wrong."""
    with_weights = CARD_ONLY not in arguments
    arguments = [argument for argument in arguments if argument != CARD_ONLY]
    if len(arguments) < 2:
        sys.stderr.write(f"{__doc__}")
        return 2
    name, *folders = arguments
    try:
        card = publish(
            name, [expanded(each, RequestError) for each in folders], with_weights=with_weights
        )
    except RequestError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{card.text()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
