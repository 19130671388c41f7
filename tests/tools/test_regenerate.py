from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stored_pictures import EVERY

from gibbon.records.illustration import FOLDER, save_illustration
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import tables_markdown
from tools.docs.regenerate import main

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


def test_the_datasets_of_a_table_can_be_named(
    readme: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [each.dataset.name for each in record.suite.experiments]
    assert len(names) > 1
    mark = "<!-- gibbon:evaluations results/made-up"
    readme.write_text(README.replace(mark, f"{mark} {names[-1]}"), encoding="utf-8")
    assert main([str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert [f"On {name}:" in text for name in names] == [name == names[-1] for name in names]
    readme.write_text(README.replace(mark, f"{mark} elsewhere"), encoding="utf-8")
    assert main([str(readme)]) == 2
    assert "unknown dataset 'elsewhere'" in capsys.readouterr().err


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


def test_curves_by_model_are_drawn_from_what_the_run_has(
    readme: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    region = "<!-- gibbon:models results/made-up models.svg -->\n<!-- /gibbon -->\n"
    readme.write_text(region, encoding="utf-8")
    assert main([str(readme)]) == 0
    assert "of each model, by attack: A made-up | run](models.svg)" in readme.read_text("utf-8")
    assert main([str(readme), "--check"]) == 0
    fewer = tuple(each for each in record.evaluations if str(each.epsilon) != "8/255")
    record.model_copy(update={"evaluations": fewer}).write(readme.parent / "results" / "made-up")
    assert main([str(readme), "--check"]) == 1
    assert "models.svg is stale" in capsys.readouterr().err


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


@pytest.fixture
def illustrated(readme: Path) -> Path:
    for each in EVERY:
        save_illustration(each, readme.parent / "results" / "made-up" / FOLDER)
    region = "<!-- gibbon:illustration results/made-up {} docs/{}.{} -->\n<!-- /gibbon -->\n"
    text = region.format("addition", "addition", "png") + region.format("sweep", "sweep", "svg")
    readme.write_text(text, encoding="utf-8")
    return readme


def test_illustrations_are_drawn_with_their_words(illustrated: Path) -> None:
    assert main([str(illustrated)]) == 0
    text = illustrated.read_text(encoding="utf-8")
    assert "![net takes a picture of the class “espresso” for" in text
    assert "](docs/addition.png)" in text
    assert (illustrated.parent / "docs" / "addition.png").read_bytes().startswith(b"\x89PNG")
    assert main([str(illustrated), "--check"]) == 0


def test_an_illustration_of_other_data_is_stale(
    illustrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(illustrated)])
    sweep = next(each for each in EVERY if each.kind == "sweep")
    moved = replace(sweep, epsilons=sweep.epsilons * 1.0001)  # type: ignore[union-attr,type-var]
    save_illustration(moved, illustrated.parent / "results" / "made-up" / FOLDER)
    assert main([str(illustrated), "--check"]) == 1
    assert "sweep.svg is stale" in capsys.readouterr().err


def test_an_illustration_that_is_not_there_is_told(
    illustrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = illustrated.read_text(encoding="utf-8").replace("sweep docs", "sweeep docs")
    illustrated.write_text(text, encoding="utf-8")
    assert main([str(illustrated)]) == 2
    assert "did you mean 'sweep'" in capsys.readouterr().err


def test_the_tables_beside_a_record_are_made_from_it(
    readme: Path, record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    run = readme.parent / "results" / "made-up"
    (run / "confidence.csv").write_text("of outcomes", encoding="utf-8")
    assert main([str(run), "--check"]) == 1
    assert f"{run / 'tables.md'} is stale" in capsys.readouterr().err
    assert main([str(run)]) == 0
    assert main([str(run), "--check"]) == 0
    assert (run / "tables.md").read_text(encoding="utf-8") == tables_markdown(record)
    assert (run / "confidence.csv").read_text(encoding="utf-8") == "of outcomes"

    worse = record.evaluations[1].model_copy(update={"adversarial_error": 0.123})
    changed = (record.evaluations[0], worse, *record.evaluations[2:])
    record.model_copy(update={"evaluations": changed}).write(run)
    assert main([str(run), "--check"]) == 1
    told = capsys.readouterr().err
    assert "evaluations.csv is stale" in told
    assert "transfer.csv" not in told
