"""All tables of a run, made from its stored record alone.

Ideas and how they mix: `benchmark.report.results` looks a record up by what the suite asked for;
here each function makes one kind of `Table` of it; `chapters` puts them in reading order.  What
failed is ``failed`` in every table, never a number; what a suite asks for and a record lacks is
``not run``; a rate of no examples is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmark.records import Evaluation, Member, RunRecord, Transfer, WorstCase
from benchmark.report.comparison import COMPARED, COMPARED_NOTES, comparison_tables
from benchmark.report.layout import (
    FAILED,
    NOT_RUN,
    NOTHING,
    Cell,
    Chapter,
    Column,
    Table,
    cells,
)
from benchmark.report.published import paper_table
from benchmark.report.results import (
    Cut,
    Measured,
    Results,
    State,
    adversarial_error,
    clean_error,
    error_after,
    error_given_source,
    same_class_given_both,
    same_class_given_source,
    success_rate,
    transfer_error,
    worst_case_error,
)
from benchmark.report.wording import (
    count,
    interval,
    length,
    parameters_in_words,
    percent,
    share,
    yes_no,
)
from benchmark.specs import UNATTACKED, AttackSpec, Experiment
from benchmark.threat import Epsilon

PAPER = "Published and measured"
TROUBLE = "Failures and flags"
EVALUATIONS = "Evaluations"
CURVES = "Error against epsilon"
NEAREST = "Smallest adversarial distance"
WORST_CASE = "Worst case over attacks"
MEMBERS = "Worst of several attacks"
TRANSFER = "Transfer"
AGREEMENT = "Agreement between targets"

_DIAGONAL = "†"

EVALUATION_NOTES = (
    "Clean error: misclassified unattacked. Adversarial error: of all examples, those whose "
    "adversarial example is misclassified; clean mistakes are attacked and counted too. The "
    "interval (Wilson, 95 %) and the count are of the adversarial error, in the unattacked "
    f"line (`{UNATTACKED}`) of the clean error.",
    "Worst-case error: misclassified clean or by any candidate tried. Success rate: of the "
    "examples that are classified correctly when clean, those misclassified under attack.",
    "Confidence: the model's probability for the class it predicts; the softmax maximum unless the "
    "model declares otherwise (an RBF unit's own output, unnormalised). On misclassified: mean "
    f"over the misclassified examples, {NOTHING} where there are none. Mean: over all examples.",
    "Saturated: share of examples whose softmax is 1 for the true class in float32. Zero "
    "gradient: share whose input gradient is zero throughout.",
)
_ERROR_ONLY_NOTE = (
    "Asked for errors alone: attacks that can stop at an example's first success did, and what is "
    "left of confidence under attack is not shown."
)
_CURVE_NOTES = (
    "Adversarial error over all examples, with its Wilson 95 % interval; the first column is the "
    "clean error. Counts stand in the evaluations.",
)
_NEAREST_NOTES = (
    "How far the nearest misclassified point is that the attack found, in the units of the input: "
    "a bound from above on the smallest distance that there is. Found: of all examples, those with "
    "such a point, which is the input itself, at distance 0, where that is misclassified. The "
    "model was asked again; nothing that an attack claims counts.",
    f"Quantiles are over all examples, those without a point counting as infinitely far; {NOTHING} "
    "where the quantile is infinite, because too few were found. The error at any ε is the share "
    "of all examples whose distance is at most ε.",
)
_WORST_CASE_NOTES = (
    "Of all examples, those misclassified clean or by any candidate of any of the attacks named; "
    "1 − worst-case error is the robust accuracy. It is a lower bound on what an adversary can "
    "reach. An attack that failed is named so and counts for nothing.",
)
_MEMBER_NOTES = (
    "The attacks of a list in their order, each on what no earlier one misled; examples that are "
    "misclassified clean are given to none. Error after it: of all examples, those misclassified "
    "clean or misled by this attack or one before it.",
)
_TRANSFER_NOTES = (
    "Rows are the models that the examples were made on (sources), columns the models that they "
    f"were scored on (targets); {_DIAGONAL} where both are the same model. In brackets the Wilson "
    "95 % interval; the second column is what the rates of its row are a share of.",
    "Error: misclassified by the target, of all examples. Given the source is misled: of the "
    "examples that the source misclassifies. Same wrong class: the target gives the wrong class "
    "that the source gives. Given both are misled: of the examples that both misclassify; how "
    "many those are stands in each cell.",
)
_AGREEMENT_NOTES = (
    "Of one source's examples that both targets misclassify, the share that they put into the "
    "same wrong class.",
)


def chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns all tables of a run in reading order; chapters with nothing to say are left out."""
    results = Results(record)
    paper = paper_table(results)
    found = (
        trouble(record),
        Chapter(PAPER, (paper,) if paper else ()),
        Chapter(EVALUATIONS, tuple(evaluation_tables(results)), EVALUATION_NOTES),
        Chapter(COMPARED, tuple(comparison_tables(results)), COMPARED_NOTES),
        Chapter(CURVES, tuple(curve_tables(results)), _CURVE_NOTES),
        Chapter(NEAREST, tuple(nearest_tables(results)), _NEAREST_NOTES),
        Chapter(WORST_CASE, tuple(worst_case_tables(results)), _WORST_CASE_NOTES),
        Chapter(MEMBERS, tuple(member_tables(results)), _MEMBER_NOTES),
        Chapter(TRANSFER, tuple(transfer_tables(results)), _TRANSFER_NOTES),
        Chapter(AGREEMENT, tuple(agreement_tables(results)), _AGREEMENT_NOTES),
    )
    return tuple(each for each in found if each.tables or (each.title == TROUBLE and each.notes))


def trouble(record: RunRecord) -> Chapter:
    """Returns what failed, what was flagged, and whether the run came to its end."""
    tables = []
    if record.failures:
        rows = tuple(
            cells(
                each.dataset,
                each.model,
                each.attack,
                str(each.epsilon),
                next(iter(each.error.splitlines()), ""),
            )
            for each in record.failures
        )
        tables.append(
            Table(
                "Failed cells",
                (
                    Column("Dataset", "left"),
                    Column("Model", "left"),
                    Column("Attack", "left"),
                    Column("ε"),
                    Column("Error", "left"),
                ),
                rows,
                (
                    "A failed cell is in no mean and no matrix; it is printed as `failed`. "
                    "The tracebacks are in run.json.",
                ),
            )
        )
    notes = [f"Flag: {flag}" for flag in record.flags]
    if record.status in ("running", "interrupted"):
        notes.insert(0, f"This run is not complete ({record.status}): cells are missing.")
    return Chapter(TROUBLE, tuple(tables), tuple(notes))


# --- evaluations ---------------------------------------------------------------------------------


def evaluation_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model, attack and epsilon."""
    for experiment in results.experiments:
        yield Table(
            title=_on(experiment.dataset.name),
            columns=(
                Column("Model", "left"),
                Column("Attack", "left"),
                Column("ε"),
                Column("Clean error"),
                Column("Adversarial error"),
                Column("95 % interval", level=1),
                Column("Misclassified", level=2),
                Column("Worst-case error", level=2),
                Column("Success rate", level=1),
                Column("of correct when clean", level=2),
                Column("Confidence on misclassified"),
                Column("Mean confidence", level=2),
                Column("Saturated", level=2),
                Column("Zero gradient", level=2),
                Column("Clipped", level=1),
                Column("Iterate kept", "left", level=2),
                Column("Flags", "left", level=2),
            ),
            rows=tuple(_evaluation_rows(results, experiment)),
            notes=(
                *([_ERROR_ONLY_NOTE] if experiment.error_only else []),
                *_attack_notes(results, experiment, experiment.attacks),
            ),
        )


def _evaluation_rows(results: Results, experiment: Experiment) -> Iterator[tuple[Cell, ...]]:
    for model in experiment.models:
        for cut in (Cut(experiment.dataset.name, UNATTACKED, _ZERO), *results.cuts(experiment)):
            found = results.evaluation(cut, model.name)
            epsilon = NOTHING if cut.attack == UNATTACKED else str(cut.epsilon)
            head = cells(model.name, cut.attack, epsilon)
            if found is None or found.status == "failed":
                word = _word(results.state(cut, model.name))
                flags = found.flags if found else ""
                yield (*head, Cell(word), Cell(word), *cells(*[NOTHING] * 11), Cell(flags))
            else:
                yield (*head, *_evaluation_cells(found))


def _evaluation_cells(found: Evaluation) -> tuple[Cell, ...]:
    clean, worst, success = clean_error(found), worst_case_error(found), success_rate(found)
    unattacked = found.unattacked
    shown = clean if unattacked else adversarial_error(found)
    rate = Measured("done") if unattacked else shown
    wrong = found.misclassified if found.misclassified is not None else clean.part
    return cells(
        percent(clean.rate, clean=True),
        percent(rate.rate),
        interval(shown.low, shown.high, rate=shown.rate, clean=unattacked),
        share(wrong, found.examples),
        percent(None if unattacked else worst.rate),
        percent(None if unattacked else success.rate),
        NOTHING if unattacked else share(success.part, success.whole),
        percent(found.confidence_on_misclassified),
        percent(found.mean_confidence),
        percent(found.saturated_share),
        percent(found.zero_gradient_share),
        NOTHING if unattacked else yes_no(found.clip),
        (not unattacked and found.iterate) or NOTHING,
        found.flags,
    )


def _attack_notes(
    results: Results, experiment: Experiment, attacks: Sequence[AttackSpec]
) -> Iterator[str]:
    for attack in attacks:
        yield f"`{attack.label}`: {_attack_in_words(results, experiment, attack)}."


def _attack_in_words(results: Results, experiment: Experiment, attack: AttackSpec) -> str:
    found = _any_done(results, experiment, attack)
    norm = (found.norm if found else None) or attack.norm
    name = attack.name if attack.name != attack.label else ""
    words = [name, norm.symbol if norm else "", _clipping(attack.clip)]
    if found and found.iterate:
        words.append(f"iterate kept: {found.iterate}")
    if found:
        words.append(parameters_in_words(found.parameters))
    return ", ".join(word for word in words if word)


def _any_done(results: Results, experiment: Experiment, attack: AttackSpec) -> Evaluation | None:
    return next(_evaluated(results, experiment, attack), None)


def _evaluated(
    results: Results, experiment: Experiment, attack: AttackSpec, *, model: str | None = None
) -> Iterator[Evaluation]:
    """Yields what was measured of an attack, on one model or on all."""
    for name in [model] if model is not None else [each.name for each in experiment.models]:
        for epsilon in attack.epsilon:
            found = results.evaluation(_cut(experiment, attack, epsilon), name)
            if found is not None and found.status == "done":
                yield found


def _clipping(clip: bool) -> str:
    return "clipped to the input's bounds" if clip else "not clipped"


# --- error against epsilon -----------------------------------------------------------------------


def curve_tables(results: Results) -> Iterator[Table]:
    """Yields error against epsilon: a table per dataset and attack, models by epsilons.

    Attacks that were run at one epsilon only share one table.
    """
    for experiment in results.experiments:
        single = [attack for attack in experiment.attacks if len(attack.epsilon) == 1]
        for attack in experiment.attacks:
            if attack not in single:
                yield _curve_table(
                    results,
                    experiment,
                    f"{_on(experiment.dataset.name)}: {attack.label}",
                    [_cut(experiment, attack, each) for each in sorted(attack.epsilon)],
                    attacks=[attack],
                    header=lambda cut: f"ε = {cut.epsilon}",
                )
        if single:
            yield _curve_table(
                results,
                experiment,
                f"{_on(experiment.dataset.name)}: attacks at one epsilon",
                [_cut(experiment, attack, attack.epsilon[0]) for attack in single],
                attacks=single,
                header=lambda cut: f"{cut.attack}, ε = {cut.epsilon}",
            )


def _curve_table(
    results: Results,
    experiment: Experiment,
    title: str,
    cuts: list[Cut],
    *,
    attacks: list[AttackSpec],
    header: Callable[[Cut], str],
) -> Table:
    return Table(
        title=title,
        columns=(
            Column("Model", "left"),
            Column("Examples", level=2),
            Column("ε = 0 (clean)"),
            *(Column(header(cut)) for cut in cuts),
        ),
        rows=tuple(_curve_row(results, model.name, cuts) for model in experiment.models),
        notes=tuple(_attack_notes(results, experiment, attacks)),
    )


def _curve_row(results: Results, model: str, cuts: list[Cut]) -> tuple[Cell, ...]:
    unattacked = results.clean(cuts[0].dataset, model)
    start = Cut(cuts[0].dataset, UNATTACKED, _ZERO)
    errors = []
    for cut in cuts:
        found = results.evaluation(cut, model)
        measured = adversarial_error(found) if found else Measured(results.state(cut, model))
        errors.append(rate_cell(measured))
    clean = clean_error(unattacked) if unattacked else Measured(results.state(start, model))
    return cells(
        model,
        count(unattacked.examples if unattacked else None),
        rate_cell(clean, clean=True),
        *errors,
    )


# --- smallest adversarial distance ---------------------------------------------------------------


def nearest_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model and attack that looks for the nearest example."""
    for experiment in results.experiments:
        searching = [
            attack
            for attack in experiment.attacks
            if any(
                each.nearest_found is not None for each in _evaluated(results, experiment, attack)
            )
        ]
        rows = tuple(
            _nearest_row(results, experiment, model.name, attack)
            for model in experiment.models
            for attack in searching
        )
        if rows:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Attack", "left"),
                    Column("Norm", "left"),
                    Column("Clipped", level=1),
                    Column("Found"),
                    Column("Examples", level=2),
                    Column("10 % within"),
                    Column("Median distance"),
                    Column("90 % within"),
                ),
                rows=rows,
                notes=tuple(_attack_notes(results, experiment, searching)),
            )


def _nearest_row(
    results: Results, experiment: Experiment, model: str, attack: AttackSpec
) -> tuple[Cell, ...]:
    # One search serves every epsilon of an attack: any cell that is done has its distances.
    any_done = _any_done(results, experiment, attack)
    norm = (any_done.norm if any_done else None) or attack.norm
    head = (model, attack.label, norm.symbol if norm else NOTHING, yes_no(attack.clip))
    for each in _evaluated(results, experiment, attack, model=model):
        if each.nearest_found is not None:
            return cells(
                *head,
                percent(each.nearest_found / each.examples if each.examples else None),
                count(each.examples),
                length(each.nearest_q10),
                length(each.nearest_median),
                length(each.nearest_q90),
            )
    word = _word(results.state(_cut(experiment, attack, attack.epsilon[0]), model))
    return cells(*head, word, *[NOTHING] * 4)


# --- worst case ----------------------------------------------------------------------------------


def worst_case_tables(results: Results) -> Iterator[Table]:
    """Yields the worst case over all attacks of one threat model: a table a dataset."""
    for experiment in results.experiments:
        found = [
            each for each in results.record.worst_cases if each.dataset == experiment.dataset.name
        ]
        if found:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Norm", "left"),
                    Column("ε"),
                    Column("Clipped"),
                    Column("Worst-case error"),
                    Column("95 % interval"),
                    Column("Misclassified"),
                    Column("Attacks", "left"),
                ),
                rows=tuple(_worst_case_row(results, experiment, each) for each in found),
            )


def _worst_case_row(results: Results, experiment: Experiment, found: WorstCase) -> tuple[Cell, ...]:
    failed = [
        f"{attack.label} {FAILED}"
        for attack in experiment.attacks
        if attack.label not in found.attacks
        and attack.clip == found.clip
        and found.epsilon in attack.epsilon
        and results.state(_cut(experiment, attack, found.epsilon), found.model) == "failed"
    ]
    rate = found.worst_case_error
    return cells(
        found.model,
        found.norm.symbol,
        str(found.epsilon),
        yes_no(found.clip),
        percent(rate),
        interval(found.worst_case_error_low, found.worst_case_error_high, rate=rate),
        share(found.misclassified, found.examples),
        ", ".join([*found.attacks, *failed]),
    )


# --- worst of several attacks --------------------------------------------------------------------


def member_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model, list of attacks, epsilon and attack of it."""
    for experiment in results.experiments:
        labels = {attack.label for attack in experiment.attacks}
        rows = tuple(
            _member_row(each)
            for each in results.record.members
            if each.dataset == experiment.dataset.name and each.attack in labels
        )
        if rows:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Attack", "left"),
                    Column("ε"),
                    Column("Member", "left"),
                    Column("Given", level=1),
                    Column("Misled"),
                    Column("Error after it"),
                    Column("95 % interval", level=1),
                ),
                rows=rows,
            )


def _member_row(found: Member) -> tuple[Cell, ...]:
    after = error_after(found)
    head = cells(found.model, found.attack, str(found.epsilon), found.member)
    if after.state != "done":
        return (*head, *cells(NOTHING, NOTHING, _word(after.state), NOTHING))
    return (
        *head,
        *cells(
            count(found.given),
            count(found.misled),
            percent(after.rate),
            interval(after.low, after.high, rate=after.rate),
        ),
    )


# --- transfer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """One of the transfer matrices: what its cells are, and of which examples."""

    name: str
    title: str
    cell: Callable[[Transfer], Measured]
    of: str


MATRICES = (
    Matrix("error", "error", transfer_error, "Examples"),
    Matrix(
        "error_given_source_misclassified",
        "error, given the source is misled",
        error_given_source,
        "Source misled",
    ),
    Matrix(
        "same_class_given_source_misclassified",
        "same wrong class, given the source is misled",
        same_class_given_source,
        "Source misled",
    ),
    Matrix(
        "same_class_given_both_misclassified",
        "same wrong class, given both are misled",
        same_class_given_both,
        "Source misled",
    ),
)


def transfer_tables(results: Results, *, only_error: bool = False) -> Iterator[Table]:
    """Yields the transfer matrices: rows are sources, columns targets."""
    for experiment in results.experiments:
        for cut in results.transfer_cuts(experiment):
            for matrix in MATRICES[:1] if only_error else MATRICES:
                yield _transfer_table(results, experiment, cut, matrix)


def _transfer_table(results: Results, experiment: Experiment, cut: Cut, matrix: Matrix) -> Table:
    models = [model.name for model in experiment.models]
    return Table(
        title=f"{_on(cut.dataset)}, {cut.attack}, ε = {cut.epsilon}: {matrix.title}",
        columns=(
            Column("Source ↓ target →", "left"),
            Column(matrix.of),
            *(Column(model) for model in models),
        ),
        rows=tuple(
            cells(
                source,
                _denominator(results, cut, source, matrix),
                *(_transfer_cell(results, cut, source, target, matrix) for target in models),
            )
            for source in models
        ),
        notes=(_cut_in_words(results, experiment, cut),),
    )


def _denominator(results: Results, cut: Cut, source: str, matrix: Matrix) -> str:
    found = results.evaluation(cut, source)
    if found is None or found.status == "failed":
        return _word(results.state(cut, source))
    return count(found.examples if matrix.of == "Examples" else found.misclassified)


def _transfer_cell(results: Results, cut: Cut, source: str, target: str, matrix: Matrix) -> Cell:
    mark = f" {_DIAGONAL}" if source == target else ""
    measured = transferred(results, cut, source, target, matrix)
    cell = rate_cell(measured)
    detail = cell.detail
    if matrix.cell is same_class_given_both and measured.whole is not None:
        detail = f"{detail} of {count(measured.whole)}".strip()
    return Cell(cell.text + mark, detail)


def transferred(results: Results, cut: Cut, source: str, target: str, matrix: Matrix) -> Measured:
    """Returns what stands in one place of a transfer matrix."""
    found = results.transfer(cut, source, target)
    if found is not None:
        return matrix.cell(found)
    own = results.evaluation(cut, source) if source == target else None
    if own is None:
        return Measured("failed" if results.state(cut, source) == "failed" else "not run")
    if own.status == "failed" or matrix.cell is transfer_error:
        return adversarial_error(own)
    whole = own.misclassified  # given the source is misled, the source is misled: always
    return Measured("done", 1.0 if whole else None, part=whole, whole=whole)


def _cut_in_words(results: Results, experiment: Experiment, cut: Cut) -> str:
    attack = next(each for each in experiment.attacks if each.label == cut.attack)
    return f"`{cut.attack}`: {_attack_in_words(results, experiment, attack)}."


# --- agreement -----------------------------------------------------------------------------------


def agreement_tables(results: Results) -> Iterator[Table]:
    """Yields how often two targets give the same wrong class on one source's examples."""
    for experiment in results.experiments:
        for cut in results.transfer_cuts(experiment):
            rows = tuple(_agreement_rows(results, cut))
            if rows:
                yield Table(
                    title=f"{_on(cut.dataset)}, {cut.attack}, ε = {cut.epsilon}",
                    columns=(
                        Column("Source", "left"),
                        Column("Targets", "left"),
                        Column("Same wrong class"),
                        Column("95 % interval"),
                        Column("of both misled"),
                    ),
                    rows=rows,
                    notes=(_cut_in_words(results, experiment, cut),),
                )


def _agreement_rows(results: Results, cut: Cut) -> Iterator[tuple[Cell, ...]]:
    for each in results.record.agreements:
        if Cut(each.dataset, each.attack, each.epsilon) == cut:
            found = same_class_given_both(each)
            done = found.state == "done"
            yield cells(
                each.source,
                f"{each.first}, {each.second}",
                percent(found.rate) if done else FAILED,
                interval(found.low, found.high, rate=found.rate),
                share(found.part, found.whole) if found.part is not None else count(found.whole),
            )


# --- shared --------------------------------------------------------------------------------------

_ZERO = Epsilon.parse("0")


def _on(dataset: str) -> str:
    return f"on {dataset}"


def _cut(experiment: Experiment, attack: AttackSpec, epsilon: Epsilon) -> Cut:
    return Cut(experiment.dataset.name, attack.label, epsilon)


def _word(state: State) -> str:
    return {"failed": FAILED, "not run": NOT_RUN}.get(state, NOTHING)


def rate_cell(measured: Measured, *, clean: bool = False) -> Cell:
    """Returns a rate with its interval as detail, or the word for why there is none."""
    if measured.state != "done":
        return Cell(_word(measured.state))
    if measured.low is None or measured.high is None:
        return Cell(percent(measured.rate, clean=clean))
    return Cell(
        percent(measured.rate, clean=clean),
        interval(measured.low, measured.high, rate=measured.rate, clean=clean),
    )
