"""A run as one HTML page that works offline, on a phone, in print, in light and dark, by keyboard.

Sections are records here and templates in ``templates/``; Jinja2 escapes all texts.  The page
contains its style and its script and loads nothing; its content security policy permits only that
script, by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gibbon.core.plain_text import printable
from gibbon.records.flag_kinds import MEANINGS
from gibbon.records.illustration import illustrations
from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import report_chapters
from gibbon.report.content.chart_data.curves import panels
from gibbon.report.content.chart_data.distance_curves import whole_curves
from gibbon.report.content.chart_data.gallery import GalleryView, galleries, gallery_view
from gibbon.report.content.chart_data.heat_map import heat_maps
from gibbon.report.content.parts.flag_groups import ACCEPTED, FlagGroup, flag_groups
from gibbon.report.content.parts.layout import Chapter, Column, Table, cells, columns
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import count
from gibbon.report.content.published_numbers.claims import CLAIMS
from gibbon.report.content.published_numbers.published import PAPER
from gibbon.report.content.summary.headline import HEADLINE
from gibbon.report.content.summary.opening import opening
from gibbon.report.content.summary.verdict_cards import (
    checks_done,
    flags_by_model,
    title_sentence,
    verdict_cards,
)
from gibbon.report.content.tables.error_curves import CURVES
from gibbon.report.content.tables.failures_and_flags import FAILURES_AND_FLAGS
from gibbon.report.content.tables.no_class import NO_CLASS
from gibbon.report.content.tables.transfer import TRANSFER
from gibbon.report.html.charts import attack_chart, error_chart, model_styles
from gibbon.report.html.confidence_section import CONFIDENCE_NOTES, confidence_content
from gibbon.report.html.kind_pages import KindPage, kind_page
from gibbon.report.html.published_charts import published_charts, tally
from gibbon.report.html.table_view import (
    TableView,
    TableViews,
    capitalised,
    code_and_text,
    flag_place,
)

if TYPE_CHECKING:
    from gibbon.report.figures.illustrations import Drawing

_TEMPLATES: Final = Path(__file__).parent / "templates"
_CONFIDENCE: Final = "Confidence"
_ILLUSTRATIONS: Final = "What the attack does"
_PICTURES: Final = "Examples"
_OPEN_GALLERIES: Final = 4  # more make the page long
_OPEN_GROUPS: Final = 2  # groups of flags that are unfolded; of more, all are folded
_OPEN_FLAGS: Final = 3  # flags of an unfolded group
_SHOWN_CARDS: Final = 8  # verdicts that are unfolded
_PROVENANCE: Final = "Where these numbers come from"


@dataclass(frozen=True)
class Section:
    """A section of the page; ``short`` is its title in the menu.

    ``template`` is the name of its template, which shows ``content`` beside tables and notes.
    """

    ident: str
    title: str
    tables: tuple[TableView, ...]
    notes: tuple[str, ...]
    template: str
    short: str
    content: Mapping[str, object]


@dataclass(frozen=True)
class FoldableGroup:
    """Flags of one kind, the page about the kind, and whether they are unfolded at first.

    ``page`` is None if an earlier group, of another severity, has it.
    """

    group: FlagGroup
    page: KindPage | None
    open: bool


@dataclass(frozen=True)
class FoldableGallery:
    """A gallery, and whether it is unfolded at first."""

    gallery: GalleryView
    open: bool


def report_html(record: RunRecord, folder: Path) -> str:
    """Returns a run as one HTML page.

    Args:
        record: the run's record.
        folder: the run's folder, with its outcomes and galleries.

    Raises `RecordError` if a file of the run can't be read.
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
    environment.filters["flag_place"] = flag_place
    environment.filters["printable"] = printable
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    cards = verdict_cards(RunLookup(record))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=record.suite.title or record.suite.name,
        sentence=title_sentence(cards),
        verdicts=cards,
        shown_verdicts=_SHOWN_CARDS,
        checks=checks_done(record),
        flagged_kinds=frozenset(each.kind for each in record.flags),
        description=record.suite.description,
        facts=tuple(_facts(record)),
        opening=opening(record, brief=True),
        sections=tuple(_sections(record, folder)),
        provenance=record.provenance,
        script=Markup(script),  # noqa: S704  our own file
        script_digest=f"sha256-{digest}",
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
    )


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yields the numbers at the head of the page, each with its words."""
    experiments = record.suite.experiments
    models = len({model.name for each in experiments for model in each.models})
    attacked = sum(not each.unattacked for each in record.evaluations)
    yield str(count(models)), "model" if models == 1 else "models"
    yield str(count(len(experiments))), "dataset" if len(experiments) == 1 else "datasets"
    yield str(count(attacked)), "attacked cells"
    yield str(count(sum(each.examples for each in record.datasets))), "examples"
    yield str(count(len(record.failures))), "failures"
    serious = sum(each.counts for each in record.flags)
    accepted = sum(each.accepted for each in record.flags)
    others = len(record.flags) - serious - accepted
    yield str(count(serious)), "serious flag" if serious == 1 else "serious flags"
    if accepted:
        yield str(count(accepted)), "accepted flag" if accepted == 1 else "accepted flags"
    yield str(count(others)), "other flag" if others == 1 else "other flags"


def _sections(record: RunRecord, folder: Path) -> Iterator[Section]:
    results, views = RunLookup(record), TableViews({each.kind for each in record.flags})
    found = {chapter.title: chapter for chapter in report_chapters(record)}
    found.pop(FAILURES_AND_FLAGS, None)  # its section has more
    yield _section("headline", found.pop(HEADLINE.title), views)
    yield _section("trouble", Chapter(FAILURES_AND_FLAGS), views, "trouble", _trouble(record))
    if paper := found.pop(PAPER.title, None):
        yield _section("published", paper, views, "published", _published(results))
    if claims := found.pop(CLAIMS.title, None):
        yield _section("claims", claims, views)
    if drawn := _drawings(folder):
        chapter = Chapter(_ILLUSTRATIONS)
        yield _section("illustrations", chapter, views, "illustrations", {"drawings": drawn})
    if curves := found.pop(CURVES.title, None):
        charts = _curves(record, results, folder)
        yield _section("curves", curves, views, "curves", charts)
    tables, models = confidence_content(record, results, folder)
    confidence = Chapter(_CONFIDENCE, tables, CONFIDENCE_NOTES)
    yield _section("confidence", confidence, views, "confidence", {"models": models})
    pictures = _galleries(record, results, folder)
    yield _section("pictures", Chapter(_PICTURES), views, "galleries", pictures)
    if transfer := found.pop(TRANSFER.title, None):
        maps = tuple(heat_maps(results))
        yield _section("transfer", transfer, views, "transfer", {"maps": maps})
    if no_class := found.pop(NO_CLASS.title, None):
        yield _section("no-class", no_class, views)
    for place, chapter in enumerate(found.values(), start=1):
        yield _section(f"tables-{place}", chapter, views)
    yield _section(
        "provenance",
        Chapter(_PROVENANCE, tuple(_card_tables(record)), tuple(_card_notes(record))),
        views,
        "provenance",
        {"facts": [(name, value) for name, value in _origin(record) if value]},
        short="Provenance",
    )


def _section(
    ident: str,
    chapter: Chapter,
    views: TableViews,
    template: str = "tables",
    content: Mapping[str, object] | None = None,
    *,
    short: str = "",
) -> Section:
    tables = tuple(views.table(table, under=chapter.title) for table in chapter.tables)
    return Section(ident, chapter.title, tables, chapter.notes, template, short, content or {})


def _published(results: RunLookup) -> dict[str, object]:
    charts = tuple(published_charts(results))
    others = any(not each.main for chart in charts for row in chart.rows for each in row.found)
    return {"charts": charts, "tally": tally(results), "others": others}


def _drawings(folder: Path) -> tuple[Drawing, ...]:
    found = tuple(illustrations(folder))
    if not found:
        return ()
    from gibbon.report.figures.illustrations import draw  # late: matplotlib is slow to import

    return tuple(map(draw, found))


def _galleries(record: RunRecord, results: RunLookup, folder: Path) -> dict[str, object]:
    classes = {name: card.classes for name, card in record.dataset_cards.items()}
    seen: set[tuple[str, str]] = set()
    views, damaged = [], []
    for each in galleries(results, folder):
        condition = each.condition
        if each.gallery is None:
            damaged.append((each.model, f"{each.file.parent.name}/{each.file.name}"))
            continue
        names = classes.get(condition.dataset, ())
        view = gallery_view(each.model, condition, each.gallery, names)
        # For each dataset and model the first attack is unfolded.
        first = each.experiment.attacks[0].label == condition.attack
        views.append(FoldableGallery(view, first and len(seen) < _OPEN_GALLERIES))
        seen.add((condition.dataset, each.model))
    return {"views": views, "damaged": damaged}


def _trouble(record: RunRecord) -> dict[str, object]:
    groups = flag_groups(record.flags)
    first = {group.kind: group for group in reversed(groups)}
    few = len(groups) <= _OPEN_GROUPS
    return {
        "record": record,
        "groups": [
            FoldableGroup(
                group,
                kind_page(group.kind) if group is first[group.kind] else None,
                few and group.count <= _OPEN_FLAGS,
            )
            for group in groups
        ],
        "by_model": flags_by_model(record.flags),
        "kinds": frozenset(each.kind for each in record.flags),
        "meanings": MEANINGS,
        "accepted": ACCEPTED,
    }


def _curves(record: RunRecord, results: RunLookup, folder: Path) -> dict[str, object]:
    styles = model_styles(model.name for each in results.experiments for model in each.models)
    epsilons = {
        (experiment.dataset.name, attack.label): attack.epsilon
        for experiment in results.experiments
        for attack in experiment.attacks
    }
    drawn = panels(record, whole=whole_curves(record, folder))
    charts = [error_chart(panel, epsilons[panel.dataset, panel.attack], styles) for panel in drawn]
    in_curves = {(panel.dataset, panel.attack) for panel in drawn}
    for experiment in results.experiments:
        single = [
            attack
            for attack in experiment.attacks
            if (experiment.dataset.name, attack.label) not in in_curves and len(attack.epsilon) == 1
        ]
        chart = attack_chart(results, experiment, single, styles) if single else None
        if chart is not None:
            charts.append(chart)
    return {"charts": charts, "looks": styles}


def _origin(record: RunRecord) -> Iterator[tuple[str, str]]:
    origin = record.provenance
    changed = ", with uncommitted changes" if origin.dirty else ""
    yield "Suite", f"`{record.suite.name}`, seed {record.suite.seed}"
    yield "Published numbers", record.suite.source
    yield "Examples", "all" if origin.limit is None else f"a sample of {count(origin.limit)}"
    commit = f"commit `{origin.commit}`{changed}" if origin.commit else "commit not known"
    yield "Gibbon", f"{origin.gibbon}, {commit}"
    yield "Started", origin.started
    yield "Finished", origin.finished
    cells_counted = f"{origin.computed_cells} cells computed, {origin.reused_cells} recorded before"
    yield "Took", f"{origin.seconds:,.0f} s; {cells_counted}"
    yield "Device", f"{origin.device}, {origin.threads} threads, batches of {origin.batch_size}"
    yield "Platform", f"{origin.platform}, Python {origin.python}"
    yield "Libraries", ", ".join(f"{name} {at}" for name, at in sorted(origin.libraries.items()))


def _card_tables(record: RunRecord) -> Iterator[Table]:
    if record.datasets:
        yield Table(
            "Datasets",
            (
                Column("Dataset", "left"),
                *columns("Examples", "of", "Classes"),
                *columns("Input", "Digest", align="left"),
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
                *columns("Model", "Source", align="left"),
                *columns("Parameters", "Classes"),
                *columns("Outputs", "Weights", "With its predictions", align="left"),
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
