"""The page of adaptive attacks: its commands run, its flags are raised, its numbers right."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from gibbon.cli.app import main as gibbon
from gibbon.records.run import Evaluation, RunRecord
from gibbon.specs.decoding import parse_suite

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adaptive-attacks.md").read_text(encoding="utf-8")
COMMANDS = [
    text.replace("\\\n", " ").split()
    for text in re.findall(r"```sh\ngibbon (evaluate.*?)```", PAGE, re.DOTALL)
]
TOLERANCE = 0.06  # of 100 examples: other machines round other examples to the other side


@dataclass(frozen=True)
class Row:
    """A line of the table: errors as fractions of 1."""

    clean: float
    naive: float
    flag: str
    key: str
    adapted: float


def table() -> dict[str, Row]:
    region = PAGE.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    rows = {}
    for line in region.strip().splitlines()[2:]:
        name, clean, naive, flag, key, adapted = (
            each.strip() for each in line.strip("|").split("|")
        )
        errors = [float(each.removesuffix(" %")) / 100 for each in (clean, naive, adapted)]
        words = flag.strip("`"), key.strip("`")
        rows[name.partition("]")[0].strip("[")] = Row(errors[0], errors[1], *words, errors[2])
    return rows


def ran(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    monkeypatch.chdir(ROOT)
    given = [*words, "--output", str(folder), "--device", "cpu", "--no-pictures"]
    monkeypatch.setattr(sys, "argv", ["gibbon", *given])
    with pytest.raises(SystemExit) as left:
        gibbon()
    assert left.value.code == 0
    return RunRecord.read(folder)


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def attacked(record: RunRecord) -> Evaluation:
    return next(row for row in record.evaluations if not row.unattacked)


def test_the_page_has_two_commands_for_each_example() -> None:
    names = [value(words, "--name") for words in COMMANDS]
    assert names == [name for name in table() for _ in range(2)]
    files = {path.stem for path in (ROOT / "examples" / "adaptive").glob("*.py")}
    assert files == set(names)
    for plain, adapted in zip(COMMANDS[::2], COMMANDS[1::2], strict=True):
        assert adapted[: len(plain)] == plain
        assert adapted[len(plain)] == f"--{table()[value(plain, '--name')].key}"


def test_the_code_on_the_page_is_that_of_the_examples() -> None:
    sources = "".join(each.read_text() for each in (ROOT / "examples" / "adaptive").glob("*.py"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    assert all(block in sources for block in blocks)


def test_the_suite_on_the_page_is_that_of_the_command() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    head = 'name = "x"\ndataset = "mnist"\nmodels = ["maxout"]\n'
    (attack,) = parse_suite(head + block, where="the page").experiments[0].attacks
    assert attack.adaptation().backward == (("jpeg", "identity"),)
    assert tomllib.loads(block)["attacks"][0]["steps"] == 20


@pytest.mark.parametrize("name", table())
def test_examples_work_in_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few examples and steps: the plain attack is flagged, the adapted one finds much more."""
    row = table()[name]
    plain, adapted = (
        [{"100": "16", "20": "5"}.get(word, word) for word in words]
        for words in COMMANDS
        if value(words, "--name") == name
    )
    before = ran(plain, tmp_path / "plain", monkeypatch)
    serious = {flag.kind for flag in before.flags if flag.severity == "serious" and flag.attack}
    assert row.flag in serious
    after = ran(adapted, tmp_path / "adapted", monkeypatch)
    assert not [flag for flag in after.flags if flag.kind == row.flag and flag.counts]
    gain = 0.3 if row.naive < 0.5 else -0.1
    assert attacked(after).adversarial_error > attacked(before).adversarial_error + gain


@pytest.mark.slow
@pytest.mark.parametrize("name", table())
def test_the_numbers_on_the_page_are_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = table()[name]
    records = [
        ran(words, tmp_path / str(place), monkeypatch)
        for place, words in enumerate(COMMANDS)
        if value(words, "--name") == name
    ]
    for record, expected in zip(records, (row.naive, row.adapted), strict=True):
        found = attacked(record)
        assert found.clean_error == pytest.approx(row.clean, abs=TOLERANCE / 2)
        assert found.adversarial_error == pytest.approx(expected, abs=TOLERANCE)
        assert found.adversarial_error_low <= expected <= found.adversarial_error_high
