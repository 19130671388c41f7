"""Regenerates the marked regions of a markdown file from stored runs, or a run's own tables.

A region says what it holds and which run it is made from, relative to the file::

    <!-- gibbon:paper results/goodfellow2015 -->
    <!-- gibbon:evaluations results/goodfellow2015 mnist -->
    <!-- gibbon:compared results/attack-comparison -->
    <!-- gibbon:directions results/goodfellow2015 -->
    <!-- gibbon:beside results/goodfellow2015 fgsm fgsm-clipped -->
    <!-- gibbon:picture results/mnist-linf docs/error-against-epsilon.svg -->
    <!-- gibbon:models results/goodfellow2015-masking docs/masked-gradients.svg -->
    <!-- gibbon:illustration results/goodfellow2015 addition docs/addition.png -->
    <!-- gibbon:floors pyproject.toml -->
    <!-- gibbon:rooms benchmark/gibbon -->
    <!-- gibbon:tally results/goodfellow2015 -->
    <!-- gibbon:claims results/goodfellow2015 CLAIM... -->
    <!-- gibbon:rows results/goodfellow2015 ROW... -->
    <!-- gibbon:sweep results/the-paper -->
    <!-- gibbon:filters results/the-paper/filters.json -->
    <!-- gibbon:estimates results/estimates/record.json -->
    <!-- gibbon:robust results/mnist-linf 0.1 -->
    <!-- gibbon:workers results/workers/record.json -->
    <!-- gibbon:training results/trainings/maxout/seed-0/maxout.log.csv -->
    <!-- gibbon:cards model_zoo/gibbon_zoo/weights MODEL... -->
    <!-- gibbon:seeds results/trainings/maxout -->
    <!-- gibbon:softmax results/the-paper/softmax.json -->
    <!-- gibbon:trials results/the-paper/trials.json TABLE -->
    <!-- gibbon:training-speed results/training-speed/record.json -->

and ends with ``<!-- /gibbon -->``.  Run ``python -m tools.docs.regenerate README.md`` from the
repository's root; with ``--check`` nothing is written and the exit code is 1 if a region or a
picture is stale.  For a run's folder, such as ``results/mnist-linf``, it regenerates the tables
beside ``run.json``: ``tables.md``, the CSV files, and the flags in ``confidence.csv``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gibbon.core.errors import GibbonError, RecordError, SpecError, UnknownNameError
from gibbon.core.files import write_atomically
from gibbon.core.threat import Epsilon
from gibbon.records.illustration import Illustration, digest_of, illustrations
from gibbon.records.run import RunRecord
from gibbon.report import table_files
from gibbon.report.content.chart_data.confidence import confidence_csv, confidences
from gibbon.report.content.parts.layout import Table
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.tables.attack_comparison import COMPARED, comparison_tables
from gibbon.report.content.tables.evaluations import EVALUATIONS, evaluation_tables
from gibbon.report.file_names import CONFIDENCE_FILE
from gibbon.report.text.markdown import bullets, escape, heading, table_markdown
from tools.docs.attack_tables import direction_table, side_by_side_table
from tools.docs.cards_table import cards_table
from tools.docs.floors import draw_floors, draw_rooms
from tools.docs.paper_page import chosen_claims, chosen_rows, filters_table, judged_sweep, tally
from tools.docs.robustness_table import robustness_table
from tools.docs.seeds_table import seeds_table
from tools.docs.training_table import training_table
from tools.docs.trials_table import trials_table
from tools.records.estimates import estimates_table
from tools.records.training_speed import speed_table
from tools.records.workers import workers_table
from tools.zoo.softmax_lengths import softmax_table

Maker = Callable[[list[str], Path], str]

_REGION = re.compile(
    r"(?P<opening><!-- gibbon:(?P<kind>\S+)(?P<arguments>[^\n]*?) -->)"
    r"(?P<body>.*?)"
    r"(?P<closing><!-- /gibbon -->)",
    re.DOTALL,
)
_MARK = re.compile(r"<!-- /?gibbon")


def regenerate(text: str, *, folder: Path, makers: Mapping[str, Maker] | None = None) -> str:
    """Returns a markdown text with its regions regenerated from the runs below ``folder``.

    Args:
        text: the markdown, with its marks.
        folder: the folder that paths in the marks are relative to.
        makers: the function for each kind of region, which is given the arguments after the kind
            and the folder; the functions of this module if None.

    Raises `SpecError` or `UnknownNameError` if a region is not valid, `RecordError` if its run
    can't be read.
    """
    _refuse_broken_marks(text)
    known = MAKERS if makers is None else makers

    def regenerated(region: re.Match[str]) -> str:
        kind = region["kind"]
        if kind not in known:
            raise UnknownNameError("region", kind, known=known)
        body = known[kind](region["arguments"].split(), folder)
        return f"{region['opening']}\n\n{body}\n\n{region['closing']}"

    return _REGION.sub(regenerated, text)


def stale_pictures(text: str, *, folder: Path) -> Iterator[Path]:
    """Yields the pictures that are missing or were drawn from other data than the run's."""
    return (each.file for each in _stale(text, folder))


def draw_pictures(text: str, *, folder: Path) -> None:
    """Draws the pictures of a markdown text that are missing or stale."""
    for each in list(_stale(text, folder)):
        each.file.parent.mkdir(parents=True, exist_ok=True)
        each.draw(each.file)


@dataclass(frozen=True)
class _Picture:
    """A picture of a text: its file, the digest of its data, and the function that draws it."""

    file: Path
    digest: str
    draw: Callable[[Path], None]


def _stale(text: str, folder: Path) -> Iterator[_Picture]:
    for each in _pictures(text, folder):
        if not each.file.exists() or each.digest.encode() not in each.file.read_bytes():
            yield each


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when done or up to date, 1 when stale, 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.regenerate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if stale")
    options = parser.parse_args(arguments)
    try:
        stale = _check(options.file) if options.check else _write(options.file)
    except (GibbonError, OSError) as error:
        sys.stderr.write(f"{options.file}: {error}\n")
        return 2
    for each in stale:
        sys.stderr.write(f"{each} is stale: run python -m tools.docs.regenerate {options.file}\n")
    return 1 if stale else 0


def _check(file: Path) -> list[Path]:
    if file.is_dir():
        return [file / name for name in _stale_tables(file)]
    text = file.read_text(encoding="utf-8")
    changed = regenerate(text, folder=file.parent) != text
    return [*([file] if changed else []), *stale_pictures(text, folder=file.parent)]


def _write(file: Path) -> list[Path]:
    if file.is_dir():
        for name, content in _stale_tables(file).items():
            write_atomically(file / name, content)
        return []
    text = file.read_text(encoding="utf-8")
    new = regenerate(text, folder=file.parent)
    draw_pictures(text, folder=file.parent)
    if new != text:
        write_atomically(file, new)
    return []


def _stale_tables(run: Path) -> dict[str, str]:
    record = RunRecord.read(run)
    files = table_files(record)
    if histograms := confidences(record, run):
        files[CONFIDENCE_FILE] = confidence_csv(histograms, record)
    return {
        name: content
        for name, content in files.items()
        if not (run / name).is_file() or (run / name).read_text(encoding="utf-8") != content
    }


def _refuse_broken_marks(text: str) -> None:
    # A well-formed text has no marks left after those of its regions are removed.
    rest = _REGION.sub(lambda region: region["body"], text)
    broken = _MARK.search(rest)
    if broken:
        line = rest[broken.start() :].splitlines()[0]
        raise SpecError(
            "a region is opened by <!-- gibbon:KIND RUN --> and closed by <!-- /gibbon -->; "
            f"{line!r} lacks its other half"
        )


def _paper(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments, "gibbon:paper RUN", 1)
    record = RunRecord.read(folder / run)
    table = paper_table(RunLookup(record))
    if table is None:
        raise RecordError(f"{run}: suite {record.suite.name} has no published rows")
    return _table(table)


def _evaluations(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments[:1], "gibbon:evaluations RUN [DATASET...]", 1)
    results = RunLookup(RunRecord.read(folder / run))
    there = [each.dataset.name for each in results.experiments]
    wanted = arguments[1:] or there
    for name in wanted:
        if name not in there:
            raise UnknownNameError("dataset", name, known=there, where=run)
    tables = [
        f"{heading(table)}:\n\n{_table(table)}"
        for name, table in zip(there, evaluation_tables(results), strict=True)
        if name in wanted
    ]
    return "\n\n".join([*tables, bullets(EVALUATIONS.notes)])


def _compared(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments, "gibbon:compared RUN", 1)
    results = RunLookup(RunRecord.read(folder / run))
    tables = [each.with_flag_notes() for each in comparison_tables(results)]
    if not tables:
        raise RecordError(f"{run}: no model stands alone under three attacks or more")
    notes = bullets((*(note for each in tables for note in each.notes), *COMPARED.notes))
    return "\n\n".join([*(table_markdown(each, level=1) for each in tables), notes])


def _directions(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments, "gibbon:directions RUN", 1)
    return _table(direction_table(RunLookup(RunRecord.read(folder / run))))


def _side_by_side(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments[:1], "gibbon:beside RUN ATTACK...", 1)
    return _table(side_by_side_table(RunLookup(RunRecord.read(folder / run)), arguments[1:]))


def _picture(arguments: list[str], folder: Path) -> str:
    run, picture = _expect(arguments, "gibbon:picture RUN PICTURE", 2)
    suite = RunRecord.read(folder / run).suite
    return f"![Error against ε: {suite.title or suite.name}]({picture})"


def _models(arguments: list[str], folder: Path) -> str:
    run, picture = _expect(arguments, "gibbon:models RUN PICTURE", 2)
    suite = RunRecord.read(folder / run).suite
    return f"![Error against ε of each model, by attack: {suite.title or suite.name}]({picture})"


def _illustration(arguments: list[str], folder: Path) -> str:
    from gibbon.report.figures.illustrations import describe

    run, kind, picture = _expect(arguments, "gibbon:illustration RUN KIND PICTURE", 3)
    words = describe(_illustrated(folder / run, kind))
    return f"![{escape(words)}]({picture})"


def _pictures(text: str, folder: Path) -> Iterator[_Picture]:
    for region in _REGION.finditer(text):
        arguments = region["arguments"].split()
        if region["kind"] in ("picture", "models"):
            from gibbon.report.figures.plots import curve_digest
            from tools.docs import pictures

            run, picture = _expect(arguments, f"gibbon:{region['kind']} RUN PICTURE", 2)
            record = RunRecord.read(folder / run)
            save, digest = {
                "picture": (pictures.save_error_curves, curve_digest),
                "models": (pictures.save_model_curves, pictures.model_curve_digest),
            }[region["kind"]]
            yield _Picture(folder / picture, digest(record), partial(save, record))
        elif region["kind"] == "illustration":
            from tools.docs.pictures import save_drawing

            run, kind, picture = _expect(arguments, "gibbon:illustration RUN KIND PICTURE", 3)
            found = _illustrated(folder / run, kind)
            yield _Picture(folder / picture, digest_of(found), partial(save_drawing, found))


def _illustrated(run: Path, kind: str) -> Illustration:
    found = {each.kind: each for each in illustrations(run)}
    if kind not in found:
        raise UnknownNameError("illustration", kind, known=found, where=str(run))
    return found[kind]


def _expect(arguments: list[str], usage: str, number: int) -> list[str]:
    if len(arguments) != number:
        raise SpecError(f"expected <!-- {usage} -->, got {len(arguments)} arguments")
    return arguments


def _table(table: Table, *, flags: bool = True) -> str:
    """Returns a table with its notes, of which those on flags may be said elsewhere on the page."""
    noted = table.with_flag_notes() if flags else table
    notes = f"\n\n{bullets(noted.notes)}" if noted.notes else ""
    return f"{table_markdown(noted, level=1)}{notes}"


def _floors(arguments: list[str], folder: Path) -> str:
    (project,) = _expect(arguments, "gibbon:floors PROJECT", 1)
    return f"```text\n{draw_floors(folder / project)}\n```"


def _rooms(arguments: list[str], folder: Path) -> str:
    (package,) = _expect(arguments, "gibbon:rooms FOLDER", 1)
    return f"```text\n{draw_rooms(folder / package)}\n```"


def _tally(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments, "gibbon:tally RUN", 1)
    return _table(tally(RunRecord.read(folder / run)))


def _claims(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments[:1], "gibbon:claims RUN CLAIM...", 1)
    return _table(chosen_claims(RunRecord.read(folder / run), arguments[1:]), flags=False)


def _rows(arguments: list[str], folder: Path) -> str:
    (run,) = _expect(arguments[:1], "gibbon:rows RUN ROW...", 1)
    return _table(chosen_rows(RunRecord.read(folder / run), arguments[1:]), flags=False)


def _sweep(arguments: list[str], folder: Path) -> str:
    (sweep,) = _expect(arguments, "gibbon:sweep FOLDER", 1)
    return _table(judged_sweep(folder / sweep))


def _filters(arguments: list[str], folder: Path) -> str:
    (file,) = _expect(arguments, "gibbon:filters FILE", 1)
    return _table(filters_table(folder / file))


def _robust(arguments: list[str], folder: Path) -> str:
    run, epsilon = _expect(arguments, "gibbon:robust RUN EPSILON", 2)
    record = RunRecord.read(folder / run)
    return _table(robustness_table(record, Epsilon.parse(epsilon, where=run)))


def _cards(arguments: list[str], folder: Path) -> str:
    (weights,) = _expect(arguments[:1], "gibbon:cards FOLDER MODEL...", 1)
    return cards_table(folder / weights, arguments[1:])


def _trials(arguments: list[str], folder: Path) -> str:
    record, name = _expect(arguments, "gibbon:trials RECORD TABLE", 2)
    return trials_table(folder / record, name)


def _of_file(kind: str, text: Callable[[Path], str]) -> Maker:
    """Returns the maker of regions that hold the text of one file or folder."""

    def made(arguments: list[str], folder: Path) -> str:
        (path,) = _expect(arguments, f"gibbon:{kind} PATH", 1)
        return text(folder / path)

    return made


MAKERS: Mapping[str, Maker] = {
    "paper": _paper,
    "evaluations": _evaluations,
    "compared": _compared,
    "directions": _directions,
    "beside": _side_by_side,
    "picture": _picture,
    "models": _models,
    "illustration": _illustration,
    "floors": _floors,
    "rooms": _rooms,
    "tally": _tally,
    "claims": _claims,
    "rows": _rows,
    "sweep": _sweep,
    "filters": _filters,
    "estimates": _of_file("estimates", estimates_table),
    "robust": _robust,
    "workers": _of_file("workers", workers_table),
    "training": _of_file("training", training_table),
    "seeds": _of_file("seeds", seeds_table),
    "cards": _cards,
    "softmax": _of_file("softmax", softmax_table),
    "trials": _trials,
    "training-speed": _of_file("training-speed", speed_table),
}

if __name__ == "__main__":
    raise SystemExit(main())
