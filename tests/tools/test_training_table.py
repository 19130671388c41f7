from __future__ import annotations

from pathlib import Path

from tools.docs.training_table import training_table

HEAD = (
    "part,epoch,loss,learning_rate,momentum,seconds,clean_error,adversarial_error,"
    "adversarial_confidence,note\n"
)


def log(folder: Path) -> Path:
    rows = [
        f"search,{epoch},0.5,0.1,0.5,1,{0.02 if epoch == 33 else 0.03},0.9,0.97,\n"
        for epoch in range(1, 61)
    ]
    rows += [f"second,{epoch},0.25,0.05,0.7,1,,,,\n" for epoch in (34, 35)]
    file = folder / "net.log.csv"
    file.write_text(HEAD + "".join(rows), encoding="utf-8")
    return file


def test_few_epochs_the_best_and_the_last_of_each_part_have_a_row(tmp_path: Path) -> None:
    lines = training_table(log(tmp_path)).splitlines()[2:]
    cells = [[each.strip() for each in line.strip("|").split("|")] for line in lines]
    assert [row[:2] for row in cells] == [
        *([["first", each] for each in ("1", "10", "20", "33 (best)", "50", "60")]),
        ["second", "35"],
    ]
    assert cells[3][2:] == ["0.5000", "0.1000", "0.500", "2.00", "90.00", "97.00"]
    assert cells[-1][2:] == ["0.2500", "0.0500", "0.700", "", "", ""]
