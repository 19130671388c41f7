from __future__ import annotations

from gibbon_zoo.weights_folder import WEIGHTS
from tools.docs.cards_table import cards_table


def test_the_figures_of_all_seeds_are_in_one_row_of_the_model() -> None:
    row, wide = cards_table(WEIGHTS, ["logistic", "conv-maxout"]).splitlines()[2:]
    name, seeds, clean, fgsm, naive, clipped = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, seeds) == ("logistic", "0, 1, 2")
    assert clean == "1.57 · 1.57 · 1.57"
    assert [each.count("·") for each in (fgsm, naive, clipped)] == [2, 2, 2]
    assert fgsm.startswith("100.0 / ")
    assert wide.split("|")[2].strip() == "0"
