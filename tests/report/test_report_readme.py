from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.records import RunRecord
from benchmark.report.readme import main

README = """# A project

<!-- gibbon:paper results/made-up -->
<!-- /gibbon -->

Words between.

<!-- gibbon:evaluations results/made-up -->
old
<!-- /gibbon -->

<!-- gibbon:picture results/made-up docs/curves.svg -->
<!-- /gibbon -->

Words at the end.
"""


@pytest.fixture
def readme(tmp_path: Path, record: RunRecord) -> Path:
    run = tmp_path / "results" / "made-up"
    run.mkdir(parents=True)
    record.write(run)
    file = tmp_path / "README.md"
    file.write_text(README, encoding="utf-8")
    return file


def test_regions_are_filled_and_the_rest_is_left(readme: Path) -> None:
    assert main([str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert "\nWords between.\n" in text
    assert text.endswith("Words at the end.\n")
    assert "old" not in text
    assert "confidence on misclassified" in text
    assert "−18.3" in text
    assert "![Error against ε: A made-up | run](docs/curves.svg)" in text
    assert (readme.parent / "docs" / "curves.svg").read_bytes().startswith(b"<?xml")


def test_a_second_time_changes_nothing_and_the_check_passes(readme: Path) -> None:
    main([str(readme)])
    first = readme.read_bytes()
    assert main([str(readme)]) == 0
    assert readme.read_bytes() == first
    assert main([str(readme), "--check"]) == 0


def test_the_check_writes_nothing_and_fails_when_the_text_is_stale(
    readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(readme), "--check"]) == 1
    assert readme.read_text(encoding="utf-8") == README
    assert "README.md is stale" in capsys.readouterr().err


def test_the_check_fails_when_the_picture_is_of_other_numbers(
    readme: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(readme)])
    fewer = tuple(each for each in record.evaluations if str(each.epsilon) != "8/255")
    record.model_copy(update={"evaluations": fewer}).write(readme.parent / "results" / "made-up")
    assert main([str(readme), "--check"]) == 1
    assert "curves.svg is stale" in capsys.readouterr().err


def test_attacks_on_one_model_are_compared(readme: Path, record: RunRecord) -> None:
    first, *rest = record.suite.experiments
    labels = ("one", "two", "three")
    attacks = tuple(first.attacks[0].model_copy(update={"label": label}) for label in labels)
    alone = first.model_copy(
        update={"models": first.models[:1], "attacks": attacks, "transfer": None}
    )
    suite = record.suite.model_copy(update={"experiments": (alone, *rest)})
    record.model_copy(update={"suite": suite}).write(readme.parent / "results" / "made-up")
    readme.write_text("<!-- gibbon:compared results/made-up -->\n<!-- /gibbon -->\n", "utf-8")
    assert main([str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert "Median distance" in text
    assert "| three" in text
    assert "compare passes" in text


@pytest.mark.parametrize(
    ("region", "told"),
    [
        ("<!-- gibbon:compared results/made-up -->\n<!-- /gibbon -->", "no model stands alone"),
        ("<!-- gibbon:papper results/made-up -->\n<!-- /gibbon -->", "did you mean 'paper'"),
        ("<!-- gibbon:paper results/gone -->\n<!-- /gibbon -->", "can't be read"),
        ("<!-- gibbon:paper results/made-up -->", "lacks its other half"),
        ("<!-- /gibbon -->", "lacks its other half"),
        ("<!-- gibbon:picture results/made-up -->\n<!-- /gibbon -->", "got 1 arguments"),
    ],
)
def test_a_region_that_is_wrong_is_told_and_nothing_is_written(
    readme: Path, capsys: pytest.CaptureFixture[str], region: str, told: str
) -> None:
    readme.write_text(region, encoding="utf-8")
    assert main([str(readme)]) == 2
    assert told in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == region
