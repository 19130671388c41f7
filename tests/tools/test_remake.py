"""Records are made again under their own settings, and compared row by row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gibbon.cli.app import app
from tools.records import remake

SUITE = 'name = "tiny"\ndataset = "mnist"\nmodels = ["softmax"]\nattacks = ["fgsm"]\n'
SUITE = SUITE.replace('["fgsm"]', '[{ name = "fgsm", epsilon = "0.1" }]')


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one record, and with three that can't be made here."""
    monkeypatch.setattr(remake, "MADE", tmp_path / "made")
    folder = tmp_path / "results"
    own = folder / "tiny"
    own.mkdir(parents=True)
    (own / "suite.toml").write_text(SUITE)
    words = ["run", str(own / "suite.toml"), "--output", str(own), "--limit", "30", "--no-pictures"]
    app(words, standalone_mode=False)
    for name, part, wrong in [
        ("weightless", "softmax", {"model": "softmax", "name": "w", "weights": "not-there.pth"}),
        ("foreign", "fgsm", {"name": "foolbox:LinfPGD", "epsilon": ["0.1"], "label": "other"}),
    ]:
        other = folder / name
        other.mkdir()
        made = json.loads((own / "run.json").read_text())
        made["suite"]["experiments"][0]["attacks" if part == "fgsm" else "models"] = [wrong]
        (other / "run.json").write_text(json.dumps(made))
    text = SUITE.replace(
        '["softmax"]', '[{ model = "softmax", weights = "not-there.safetensors" }]'
    )
    (folder / "weightless" / "suite.toml").write_text(text)
    return folder


@pytest.mark.slow
def test_a_record_is_made_again_and_what_can_not_be_is_skipped(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        type(remake.ATTACK_SOURCES.get("foolbox")), "installed", property(lambda self: False)
    )
    before = json.loads((records / "tiny" / "run.json").read_text())
    capsys.readouterr()
    assert remake.main(["--records", str(records)]) == 0
    said = capsys.readouterr().out
    assert "tiny: 0 values differ, and 0 numbers by rounding" in said
    assert (
        "foreign: skipped: libraries that its attacks come from are not installed: foolbox" in said
    )
    assert "weightless: skipped: " in said
    assert "not-there.safetensors" in said
    after = json.loads((records / "tiny" / "run.json").read_text())
    assert after["provenance"]["limit"] == 30
    assert after["provenance"]["started"] >= before["provenance"]["started"]
    assert after["provenance"]["reused_cells"] == 0

    table = records / "tiny" / "evaluations.csv"
    changed = table.read_text().replace("mnist,softmax,fgsm,0.1,30,", "mnist,softmax,fgsm,0.1,31,")
    assert changed != table.read_text()
    table.write_text(changed)
    assert remake.main(["tiny", "--compare", "--records", str(records)]) == 1
    line = "tiny: evaluations.csv, mnist, softmax, fgsm, linf, True, 0.1: examples 31 -> 30"
    assert line in capsys.readouterr().out
    assert table.read_text() == changed


def test_rows_and_columns_that_are_in_one_record_alone_are_said(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    lines = ["dataset,model,attack,epsilon,examples,seconds,digest", "d,m,fgsm,0.1,5,1.5,abc"]
    (one / "evaluations.csv").write_text("\n".join([*lines, "d,m,pgd,0.1,5,1.5,abc"]) + "\n")
    shutil.copytree(one, two)
    assert not list(remake.differences(one, two))
    new = [lines[0] + ",more", "d,m,fgsm,0.1,5.000001,9.5,xyz,1", "d,m,bim,0.1,5,1,abc,1"]
    (two / "evaluations.csv").write_text("\n".join(new) + "\n")
    found = list(map(str, remake.differences(one, two)))
    assert found == [
        "evaluations.csv, d, m, fgsm, 0.1: examples 5 -> 5.000001",
        "evaluations.csv, d, m, fgsm, 0.1: more missing -> 1",
        "evaluations.csv, d, m, pgd, 0.1: row there -> missing",
        "evaluations.csv, d, m, bim, 0.1: row missing -> there",
    ]
    sizes = [each.size for each in remake.differences(one, two)]
    assert sizes[0] < remake.ROUNDING < sizes[1]
