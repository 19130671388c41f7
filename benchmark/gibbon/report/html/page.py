"""A run as one HTML page: works offline, on a phone, in print, in light and dark, by keyboard.

Sections are records here and templates in ``templates/``; Jinja2 escapes whatever comes from a
file.  The page carries its style and its script, loads nothing, and forbids itself to: only the one
script whose digest it names runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gibbon.core.threat import ZERO, Epsilon
from gibbon.records.flags import MASKING
from gibbon.records.illustration import illustrations
from gibbon.records.run import Failure, RunRecord
from gibbon.report.content.chapters import PAPER, TROUBLE, chapters
from gibbon.report.content.confidence import BINS, Confidences, Key, confidences, key
from gibbon.report.content.curves import panels
from gibbon.report.content.distance_curves import whole_curves
from gibbon.report.content.error_curves import CURVES
from gibbon.report.content.gallery import GalleryView, damaged_galleries, galleries, gallery_view
from gibbon.report.content.headline import HEADLINE, HEADLINE_NOTES, headline_tables
from gibbon.report.content.heat_map import HeatMaps, heat_maps
from gibbon.report.content.layout import NOTHING, Cell, Chapter, Column, Table, cells
from gibbon.report.content.lookup import Cut, Results
from gibbon.report.content.number_format import count, percent
from gibbon.report.content.transfer import TRANSFER
from gibbon.report.html.charts import (
    Chart,
    Histogram,
    Look,
    attack_chart,
    error_chart,
    histogram,
    looks,
)
from gibbon.report.html.published_charts import PublishedChart, published_charts, tally
from gibbon.report.html.table_view import TableView, Views, capitalised, code_and_text
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment

_TEMPLATES: Final = Path(__file__).parent / "templates"
_CONFIDENCE: Final = "Confidence"
_ILLUSTRATIONS: Final = "What the attack does"
_PICTURES: Final = "Examples"
_UNFOLDED: Final = 4  # galleries; more make the page long
_PROVENANCE: Final = "Where these numbers come from"
_CONFIDENCE_NOTES: Final = (
    "Confidence: the model's probability for the class it predicts; the softmax maximum unless the "
    f"model declares otherwise. {BINS} equal bins from 0 to 100 %. The largest bin of each picture "
    "fills it, so compare shapes between pictures, and counts by their words. Attacked: at the "
    "largest ε of each attack; the table holds every ε.",
)


@dataclass(frozen=True)
class Section:
    """A section of the page: every kind has a template of its own; ``short`` is for the menu."""

    ident: str
    title: str
    tables: tuple[TableView, ...] = ()
    notes: tuple[str, ...] = ()
    template: str = "sections/tables.html"
    short: str = ""


@dataclass(frozen=True)
class Trouble(Section):
    """What failed and what was flagged; flags are grouped by their reason."""

    incomplete: bool = False
    status: str = ""
    failures: tuple[Failure, ...] = ()
    flags: tuple[str, ...] = ()
    flags_by_reason: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Published(Section):
    """Published numbers and measured ones, drawn and in a table, and how many agree."""

    charts: tuple[PublishedChart, ...] = ()
    tally: tuple[tuple[int, str], ...] = ()
    others: bool = False


@dataclass(frozen=True)
class Curves(Section):
    """Error against epsilon, drawn and in numbers."""

    charts: tuple[Chart, ...] = ()
    looks: Mapping[str, Look] | None = None


@dataclass(frozen=True)
class ModelHistograms:
    """The histograms of one model on one dataset."""

    title: str
    place: int
    histograms: tuple[Histogram, ...]


@dataclass(frozen=True)
class ConfidenceSection(Section):
    """How sure the models are, right and wrong."""

    models: tuple[ModelHistograms, ...] = ()


@dataclass(frozen=True)
class TransferSection(Section):
    """Transfer as heat maps, and in numbers with their intervals."""

    maps: tuple[HeatMaps, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A picture that carries its own content, and its words."""

    title: str
    description: str
    source: str


@dataclass(frozen=True)
class Illustrations(Section):
    """Pictures that explain, drawn from data that the run holds."""

    drawings: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Unfolded:
    """A gallery, and whether it is seen at once."""

    gallery: GalleryView
    open: bool


@dataclass(frozen=True)
class Galleries(Section):
    """A few examples of each attack, before and after."""

    views: tuple[Unfolded, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Provenance(Section):
    """Where the numbers come from."""

    facts: tuple[tuple[str, str], ...] = ()


def report_html(record: RunRecord, folder: Path) -> str:
    """Returns a run as one HTML page; ``folder`` is the run's, for its outcomes.

    Raises `RecordError` where a file that belongs to the run can't be read.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["parts"] = code_and_text
    environment.filters["capitalised"] = capitalised
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=record.suite.title or record.suite.name,
        description=record.suite.description,
        facts=tuple(_facts(record)),
        sections=tuple(_sections(record, folder)),
        provenance=record.provenance,
        script=Markup(script),  # noqa: S704  ours, read from beside this file
        script_digest=f"sha256-{digest}",
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
    )


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yields what the head of the page says: a number and its words."""
    attacked = [each for each in record.evaluations if not each.unattacked]
    models = {model.name for each in record.suite.experiments for model in each.models}
    examples = sum(each.examples for each in record.datasets)
    datasets = "dataset" if len(record.suite.experiments) == 1 else "datasets"
    yield count(len(models)), "model" if len(models) == 1 else "models"
    yield count(len(record.suite.experiments)), datasets
    yield count(len(attacked)), "attacked cells"
    yield count(examples), "examples"
    yield count(len(record.failures)), "failures"
    yield count(len(record.flags)), "flag" if len(record.flags) == 1 else "flags"


def _sections(record: RunRecord, folder: Path) -> Iterator[Section]:
    results, views = Results(record), Views()
    found = {chapter.title: chapter for chapter in chapters(record)}
    yield _trouble(record)
    yield Section(
        "headline",
        HEADLINE,
        tuple(views.table(table, bars=True) for table in headline_tables(results)),
        HEADLINE_NOTES,
    )
    if PAPER in found:
        yield _published(results, found[PAPER], views)
    drawn = tuple(_drawings(folder))
    if drawn:
        yield Illustrations(
            "illustrations",
            _ILLUSTRATIONS,
            template="sections/illustrations.html",
            drawings=drawn,
        )
    if CURVES in found:
        yield _curves(record, results, folder, found[CURVES], views)
    yield _confidence(record, results, folder, views)
    yield _galleries(record, results, folder)
    if TRANSFER in found:
        yield _transfer(results, found[TRANSFER], views)
    rest = [
        each for title, each in found.items() if title not in (TROUBLE, PAPER, CURVES, TRANSFER)
    ]
    for place, chapter in enumerate(rest, start=1):
        yield _plain(f"tables-{place}", chapter, views)
    yield _provenance(record, views)


def _published(results: Results, chapter: Chapter, views: Views) -> Published:
    charts = tuple(published_charts(results))
    return Published(
        "published",
        chapter.title,
        tuple(views.table(table, under=chapter.title) for table in chapter.tables),
        chapter.notes,
        "sections/published.html",
        charts=charts,
        tally=tally(results),
        others=any(not each.main for chart in charts for row in chart.rows for each in row.found),
    )


def _plain(ident: str, chapter: Chapter, views: Views) -> Section:
    tables = tuple(views.table(table, under=chapter.title) for table in chapter.tables)
    return Section(ident, chapter.title, tables, chapter.notes)


def _drawings(folder: Path) -> Iterator[Shown]:
    found = tuple(illustrations(folder))
    if found:
        from gibbon.report.figures.illustrations import (
            draw,  # late: brings matplotlib, which takes its time
        )

        for each in found:
            drawing = draw(each)
            kind, content = min(
                (("svg+xml", drawing.svg), ("png", drawing.png)), key=lambda form: len(form[1])
            )
            source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
            yield Shown(drawing.title, drawing.description, source)


def _galleries(record: RunRecord, results: Results, folder: Path) -> Galleries:
    classes = {name: card.classes for name, card in record.dataset_cards.items()}
    seen: set[tuple[str, str]] = set()
    read: set[str] = set()
    views = []
    for experiment, model, cut, gallery in galleries(results, folder):
        view = gallery_view(model, cut, gallery, classes.get(cut.dataset, ()))
        # Of each dataset the first attack is unfolded: the others are one click away.
        first = experiment.attacks[0].label == cut.attack and len(seen) < _UNFOLDED
        seen.add((cut.dataset, model))
        views.append(Unfolded(view, first))
        read.add(gallery.digest)
    return Galleries(
        "pictures",
        _PICTURES,
        template="sections/galleries.html",
        views=tuple(views),
        damaged=tuple(
            (model, f"{path.parent.name}/{path.name}")
            for model, path in damaged_galleries(results, folder, read=read)
        ),
    )


def _trouble(record: RunRecord) -> Trouble:
    masking = tuple(flag for flag in record.flags if flag.endswith(MASKING))
    others = tuple(flag for flag in record.flags if flag not in masking)
    stripped = tuple(flag.removesuffix(MASKING).rstrip(", ") for flag in masking)
    return Trouble(
        "trouble",
        TROUBLE,
        template="sections/trouble.html",
        incomplete=record.status not in ("done", "failed"),
        status=record.status,
        failures=record.failures,
        flags=record.flags,
        flags_by_reason=tuple(
            (reason, flags)
            for reason, flags in ((MASKING, stripped), ("other signs", others))
            if flags
        ),
    )


def _curves(
    record: RunRecord, results: Results, folder: Path, chapter: Chapter, views: Views
) -> Curves:
    look = looks(model.name for each in results.experiments for model in each.models)
    asked = {
        (experiment.dataset.name, attack.label): attack.epsilon
        for experiment in results.experiments
        for attack in experiment.attacks
    }
    drawn = panels(record, whole=whole_curves(record, folder))
    charts = [error_chart(panel, asked[panel.dataset, panel.attack], look) for panel in drawn]
    in_curves = {(panel.dataset, panel.attack) for panel in drawn}
    for experiment in results.experiments:
        single = [
            attack
            for attack in experiment.attacks
            if (experiment.dataset.name, attack.label) not in in_curves and len(attack.epsilon) == 1
        ]
        chart = attack_chart(results, experiment, single, look) if single else None
        if chart is not None:
            charts.append(chart)
    return Curves(
        "curves",
        chapter.title,
        tuple(views.table(table) for table in chapter.tables),
        chapter.notes,
        "sections/curves.html",
        charts=tuple(charts),
        looks=look,
    )


def _confidence(
    record: RunRecord, results: Results, folder: Path, views: Views
) -> ConfidenceSection:
    found = confidences(record, folder)
    models: list[ModelHistograms] = []
    tables: list[TableView] = []
    for experiment in results.experiments:
        rows = []
        for model in experiment.models:
            known = _known(results, experiment, model.name, found)
            rows += [_confidence_row(model.name, cut, each) for cut, each in known]
            largest = {cut.attack: cut.epsilon for cut, _ in known}
            for cut, _ in known:
                largest[cut.attack] = max(largest[cut.attack], cut.epsilon)
            shown = tuple(
                histogram(_cut_in_words(cut), each)
                for cut, each in known
                if cut.epsilon == largest[cut.attack]
            )
            if shown:
                title = f"{model.name} on {experiment.dataset.name}"
                models.append(ModelHistograms(title, len(models) + 1, shown))
        if rows:
            tables.append(views.table(_confidence_table(experiment, tuple(rows))))
    return ConfidenceSection(
        "confidence",
        _CONFIDENCE,
        tuple(tables),
        _CONFIDENCE_NOTES,
        "sections/confidence.html",
        models=tuple(models),
    )


def _known(
    results: Results, experiment: Experiment, model: str, found: Mapping[Key, Confidences]
) -> list[tuple[Cut, Confidences]]:
    cuts = [Cut(experiment.dataset.name, UNATTACKED, ZERO), *results.cuts(experiment)]
    known = []
    for cut in cuts:
        row = results.evaluation(cut, model)
        if row is not None:
            each = found.get(key(row.dataset, row.model, row.attack, row.epsilon))
            if each is not None:
                known.append((cut, each))
    return known


def _cut_in_words(cut: Cut) -> str:
    return "unattacked" if cut.attack == UNATTACKED else f"{cut.attack}, ε = {cut.epsilon}"


def _confidence_table(experiment: Experiment, rows: tuple[tuple[Cell, ...], ...]) -> Table:
    return Table(
        f"on {experiment.dataset.name}",
        (
            Column("Model", "left"),
            Column("Attack", "left"),
            Column("ε"),
            Column("Right"),
            Column("Mean confidence, right"),
            Column("of them at 90 % or more"),
            Column("Wrong"),
            Column("Mean confidence, wrong"),
            Column("of them at 90 % or more"),
        ),
        rows,
    )


def _confidence_row(model: str, cut: Cut, each: Confidences) -> tuple[Cell, ...]:
    epsilon: Epsilon | str = NOTHING if cut.attack == UNATTACKED else cut.epsilon
    return cells(
        model,
        cut.attack,
        str(epsilon),
        *(
            text
            for of in (each.right, each.wrong)
            for text in (count(of.examples), percent(of.mean), percent(of.at_least_ninety))
        ),
    )


def _transfer(results: Results, chapter: Chapter, views: Views) -> TransferSection:
    return TransferSection(
        "transfer",
        chapter.title,
        tuple(views.table(table) for table in chapter.tables),
        chapter.notes,
        "sections/transfer.html",
        maps=tuple(heat_maps(results)),
    )


def _provenance(record: RunRecord, views: Views) -> Provenance:
    return Provenance(
        "provenance",
        _PROVENANCE,
        tuple(views.table(table) for table in _card_tables(record)),
        tuple(_card_notes(record)),
        "sections/provenance.html",
        short="Provenance",
        facts=tuple((name, value) for name, value in _origin(record) if value),
    )


def _origin(record: RunRecord) -> Iterator[tuple[str, str]]:
    origin = record.provenance
    changed = ", with uncommitted changes" if origin.dirty else ""
    yield "Suite", f"`{record.suite.name}`, seed {record.suite.seed}"
    yield "Published numbers", record.suite.source
    yield "Examples", "all" if origin.limit is None else f"a sample of {count(origin.limit)}"
    yield (
        "Gibbon",
        f"{origin.gibbon}, commit `{origin.commit}`{changed}"
        if origin.commit
        else (f"{origin.gibbon}, commit not known"),
    )
    yield "Started", origin.started
    yield "Finished", origin.finished
    yield (
        "Took",
        f"{origin.seconds:,.0f} s; {origin.computed_cells} cells computed, "
        + (f"{origin.reused_cells} recorded before"),
    )
    yield "Device", f"{origin.device}, {origin.threads} threads, batches of {origin.batch_size}"
    yield "Platform", f"{origin.platform}, Python {origin.python}"
    yield "Libraries", ", ".join(f"{name} {at}" for name, at in sorted(origin.libraries.items()))


def _card_tables(record: RunRecord) -> Iterator[Table]:
    if record.datasets:
        yield Table(
            "Datasets",
            (
                Column("Dataset", "left"),
                Column("Examples"),
                Column("of"),
                Column("Classes"),
                Column("Input", "left"),
                Column("Digest", "left"),
            ),
            tuple(
                cells(
                    name if name == each.name else f"{name} ({each.name})",
                    count(each.examples),
                    count(each.of),
                    count(len(each.classes)),
                    " × ".join(map(str, each.input_shape)),
                    each.digest,
                )
                for name, each in record.dataset_cards.items()
            ),
        )
    if record.models:
        yield Table(
            "Models",
            (
                Column("Model", "left"),
                Column("Source", "left"),
                Column("Parameters"),
                Column("Classes"),
                Column("Outputs", "left"),
                Column("Weights", "left"),
                Column("With its predictions", "left"),
            ),
            tuple(
                cells(
                    each.name,
                    each.model,
                    count(each.parameters),
                    count(each.classes),
                    each.outputs,
                    each.weights_digest,
                    each.digest,
                )
                for each in record.models
            ),
        )


def _card_notes(record: RunRecord) -> Iterator[str]:
    for called, dataset in record.dataset_cards.items():
        yield from (f"{called}: {note}" for note in dataset.notes)
        yield from (f"{called}: left out {name}" for name in dataset.skipped)
    for model in record.models:
        yield from (f"{model.name}: {note}" for note in model.notes)
