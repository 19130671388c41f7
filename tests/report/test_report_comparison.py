from __future__ import annotations

from made_up import NOWHERE
from rich.console import Console

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.run import Evaluation, Failure, RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.tables.attack_comparison import COMPARED, comparison_tables
from gibbon.report.text.terminal import print_tables
from gibbon.specs.decoding import parse_suite

HEAD = 'name = "compared"\ndataset = "mnist"\nmodels = ["maxout"]\n'
ATTACKS = {"weak": "0.1", "strong": "0.1", "near": "1.5", "fails": "0.1", "absent": "0.1"}
SUITE = HEAD + "".join(
    f'[[attacks]]\nname = "{name}"\nepsilon = "{epsilon}"\n' for name, epsilon in ATTACKS.items()
)


def evaluation(attack: str, error: float, **more: object) -> Evaluation:
    return Evaluation.model_validate(
        {
            "dataset": "mnist",
            "model": "maxout",
            "attack": attack,
            "epsilon": Epsilon.parse(ATTACKS[attack]),
            "examples": 200,
            "adversarial_error": error,
            "adversarial_error_low": error - 0.05,
            "adversarial_error_high": error + 0.05,
            "misclassified": round(200 * error),
            "norm": Norm.LINF,
            "iterate": "last",
            **more,
        }
    )


def record(suite: str = SUITE) -> RunRecord:
    return RunRecord(
        suite=parse_suite(suite, where="compared.toml"),
        status="done",
        provenance=NOWHERE,
        evaluations=(
            evaluation("weak", 0.25, forward_passes=4200, backward_passes=4000, seconds=1.25),
            evaluation("strong", 0.8, forward_passes=200_000, seconds=30.0, iterate="best-loss"),
            evaluation("near", 0.5, norm=Norm.L2, nearest_median=1.49),
        ),
        failures=(
            Failure(
                dataset="mnist", model="maxout", attack="fails", epsilon=Epsilon.parse("0.1"),
                error="no luck", traceback="",
            ),
        ),
    )  # fmt: skip


def rows(record: RunRecord) -> list[list[str]]:
    (table,) = comparison_tables(RunLookup(record))
    return [[str(cell) for cell in row] for row in table.rows]


def test_the_strongest_stands_first_within_its_norm_and_what_was_not_run_last() -> None:
    assert [row[0] for row in rows(record())] == ["near", "strong", "weak", "fails", "absent"]


def test_a_row_holds_error_distance_and_cost() -> None:
    near, strong, weak, fails, absent = rows(record())
    assert near[1:7] == ["L2", "1.5", "yes", "50.0 %", "[45.0–55.0]", "1.49"]
    assert weak[6:] == ["–", "21", "20", "1.2", "last"]
    assert strong[7:] == ["1,000", "0", "30.0", "best-loss"]
    assert fails[4] == "failed"
    assert absent[4] == "not run"


def test_whose_attack_it_is_stands_beside_it_where_there_are_several_libraries() -> None:
    foreign = SUITE.replace('name = "weak"', 'name = "foolbox:LinfPGD"\nlabel = "weak"')
    (table,) = comparison_tables(RunLookup(record(foreign)))
    assert [column.header for column in table.columns[:3]] == ["Attack", "Library", "Norm"]
    assert {str(row[0]): str(row[1]) for row in table.rows} == {
        **dict.fromkeys(("near", "strong", "fails", "absent"), "here"),
        "weak": "foolbox",
    }
    assert [str(cell) for cell in table.rows[2][2:6]] == ["L∞", "0.1", "yes", "25.0 %"]
    told = evaluation("weak", 0.25, parameters='{"steps": 2, "release": "foolbox 3.3.4"}')
    versions = record(foreign).model_copy(update={"evaluations": (told,)})
    assert rows(versions)[0][:2] == ["weak", "foolbox 3.3.4"]


def test_two_attacks_or_two_models_are_not_compared() -> None:
    for suite in (
        HEAD + SUITE.removeprefix(HEAD).partition('[[attacks]]\nname = "near"')[0],
        SUITE.replace('["maxout"]', '["maxout", "rbf"]'),
    ):
        assert list(comparison_tables(RunLookup(record(suite)))) == []


def test_it_is_among_the_tables_and_fits_a_terminal_of_100_columns() -> None:
    assert COMPARED.title in [each.title for each in chapters(record())]
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as captured:
        print_tables(record(), console)
    text = captured.get()
    _, _, compared = text.partition(f"{COMPARED.title} on mnist: maxout")
    assert "[45.0–55.0]" in compared
    assert max(len(line) for line in compared.splitlines()) <= 100
