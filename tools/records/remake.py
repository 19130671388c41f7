"""Makes the records under `results/` again and reports which numbers differ.

Every folder of `results/` that holds a `run.json` is run again under the settings that the record
names: limit, batch size and device.  All runs come before the first record is replaced, so that the
records name a commit without changes.  A record that can't be made here, because weights, data or
another library are missing, is skipped with the reason and stays as it is.

    python -m tools.records.remake [NAME...] [--records FOLDER] [--compare] [--trainings FOLDER]

With ``--trainings`` all trainings in a folder are measured (`run --trainings`); a record that was
made so is made so again.

The exit code is 1 if a number differs by more than rounding, 2 if nothing could be made.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gibbon.attacks.adapters import ATTACK_SOURCES
from gibbon.specs.suite import ModelSpec
from gibbon.specs.trainings import trainings_folder

ROOT = Path(__file__).parents[2]
MADE = ROOT / "results" / "runs" / "records"
WRONG_REQUEST = 2  # the exit code of `run` for weights, data or a library that is not there
ROUNDING = 1e-6  # as a share of the number: matrix libraries of two processors differ by less
TABLES = ("evaluations", "transfer", "agreement", "worst_case", "members", "confidence", "claims")
# What tells a row from the others of its table.
KEYS = (
    *("dataset", "model", "source", "target", "first", "second"),
    *("id", "attack", "attacks", "member", "answers", "norm", "clip", "epsilon"),
)
CHANGING = ("seconds", "digest")  # they are others in every run, or after a change of the digest

Row = Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """A value of one row that is another one in the new record."""

    table: str
    row: str
    column: str
    before: str
    now: str

    @property
    def size(self) -> float:
        """How far two numbers are apart as a share of the larger; infinite for other values."""
        try:
            one, two = float(self.before), float(self.now)
        except ValueError:
            return float("inf")
        return abs(one - two) / max(abs(one), abs(two))

    def __str__(self) -> str:
        return f"{self.table}.csv, {self.row}: {self.column} {self.before} -> {self.now}"


def differences(before: Path, now: Path) -> Iterator[Difference]:
    """Yields where the tables of two records differ, row by row."""
    for table in TABLES:
        old, new = rows(before / f"{table}.csv"), rows(now / f"{table}.csv")
        for name in [*old, *(each for each in new if each not in old)]:
            if name not in old or name not in new:
                there = ("there", "missing") if name in old else ("missing", "there")
                yield Difference(table, name, "row", *there)
                continue
            one, two = old[name], new[name]
            for column in [*one, *(each for each in two if each not in one)]:
                values = one.get(column, "missing"), two.get(column, "missing")
                if column not in CHANGING and values[0] != values[1]:
                    yield Difference(table, name, column, *values)


def rows(file: Path) -> dict[str, Row]:
    """Returns the rows of a table by what tells them apart; none if there is no such file."""
    found: dict[str, Row] = {}
    if not file.exists():
        return found
    seen: Counter[str] = Counter()
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            name = ", ".join(row[key] for key in KEYS if row.get(key))
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name}, again ({seen[name]})"] = row
    return found


def remake(record: Path, *, output: Path, trainings: str = "") -> str:
    """Runs what a record was made with again.  Returns why that can't be done, or nothing.

    ``trainings`` is the folder of several trainings; that of the record if empty.
    """
    made = json.loads((record / "run.json").read_text())
    settings, suite = made["provenance"], made["suite"]
    absent = {
        scheme
        for experiment in suite["experiments"]
        for attack in experiment["attacks"]
        for scheme, colon, _ in [attack["name"].partition(":")]
        if colon and not ATTACK_SOURCES.get(scheme).installed
    }
    if absent:
        return (
            f"libraries that its attacks come from are not installed: {', '.join(sorted(absent))}"
        )
    own = record / "suite.toml"
    # In the folder of its suite, so that the record names its files without that folder.
    folder = record if own.exists() else ROOT
    words = ["run", own.name if own.exists() else suite["name"], "--fresh"]
    words += ["--output", str(output.resolve()), "--device", settings["device"]]
    words += ["--batch-size", str(settings["batch_size"] or "auto")]
    trainings = "" if own.exists() else trainings or trainings_of(suite)
    if trainings:
        words += ["--trainings", trainings]
    if settings["limit"] is not None:
        words += ["--limit", str(settings["limit"])]
    done = subprocess.run(  # noqa: S603  # this repository's own command
        [sys.executable, str(ROOT / "run_benchmark.py"), *words],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    if done.returncode == WRONG_REQUEST:
        return done.stderr.strip()
    if done.returncode != 0:
        raise SystemExit(
            f"{record.name}: run ended with exit code {done.returncode}\n{done.stderr}"
        )
    return ""


def trainings_of(suite: Mapping[str, Any]) -> str:
    """Returns the folder of trainings that the models of a recorded suite came from, if any."""
    models = (
        ModelSpec.model_validate(model)
        for experiment in suite["experiments"]
        for model in experiment["models"]
    )
    return next((found for each in models if (found := trainings_folder(each))), "")


def replace(record: Path, made: Path) -> None:
    """Puts a new record in the place of an old one; pictures only if the old one has some."""
    for file in [*made.glob("*.csv"), made / "run.json", made / "tables.md"]:
        shutil.copy(file, record / file.name)
    if (record / "pictures").is_dir():
        shutil.rmtree(record / "pictures")
        shutil.copytree(made / "pictures", record / "pictures")


def report(name: str, found: list[Difference]) -> bool:
    """Prints what differs in a record.  Returns whether that is more than rounding."""
    beyond = [each for each in found if each.size > ROUNDING]
    for each in beyond:
        _say(f"{name}: {each}")
    rounding = len(found) - len(beyond)
    most = max((each.size for each in found if each.size <= ROUNDING), default=0.0)
    _say(
        f"{name}: {len(beyond)} values differ, and {rounding} numbers by rounding, "
        f"at most by {most:.1g} of the number"
    )
    return bool(beyond)


def main(words: list[str]) -> int:
    """Makes records again and reports what differs.  Returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the records under results/ again.")
    parser.add_argument("names", nargs="*", help="folders of the records; all if none is named")
    parser.add_argument("--records", type=Path, default=ROOT / "results", help="where they are")
    parser.add_argument("--compare", action="store_true", help="replace nothing")
    parser.add_argument("--trainings", default="", help="folder of MODEL/seed-N/MODEL.safetensors")
    asked = parser.parse_args(words)
    found = sorted(each.parent for each in asked.records.glob("*/run.json"))
    unknown = set(asked.names) - {each.name for each in found}
    if unknown:
        parser.error(f"no record {', '.join(sorted(unknown))} in {asked.records}")
    again = {}
    for record in found:
        if asked.names and record.name not in asked.names:
            continue
        _say(f"{record.name}: running")
        reason = remake(record, output=MADE / record.name, trainings=asked.trainings)
        if reason:
            _say(f"{record.name}: skipped: {reason}")
        else:
            again[record] = MADE / record.name
    differ = [
        report(record.name, list(differences(record, made))) for record, made in again.items()
    ]
    if not asked.compare:
        for record, made in again.items():
            replace(record, made)
    return 2 if not again else int(any(differ))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
