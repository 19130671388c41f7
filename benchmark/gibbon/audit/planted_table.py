"""The table of a test on planted examples."""

from __future__ import annotations

from collections.abc import Sequence

from gibbon.audit.planted import CLOSENESS, EASY, PASSING, PlantedResult
from gibbon.report.content.parts.layout import NOTHING, Column, Table, cells, columns
from gibbon.report.content.parts.lookup import Measured
from gibbon.report.content.parts.number_format import count_of, interval, percent

SOURCE = (
    "Source: R. S. Zimmermann, W. Brendel, F. Tramèr and N. Carlini, Increasing confidence in "
    "adversarial robustness evaluations, NeurIPS 2022."
)


def planted_table(model: str, dataset: str, results: Sequence[PlantedResult]) -> Table:
    """Returns a row for each attack and budget, and what the figures say."""
    rows = tuple(
        cells(
            each.attack,
            each.threat.norm.symbol,
            each.threat.epsilon,
            count_of(each.found, each.problems),
            percent(each.share),
            interval(
                Measured(
                    "done",
                    each.share,
                    each.interval.low if each.interval is not None else None,
                    each.interval.high if each.interval is not None else None,
                )
            ),
            percent(each.random_found / each.problems) if each.problems else NOTHING,
            _verdict(each),
        )
        for each in results
    )
    return Table(
        f"Planted examples: {model} on {dataset}",
        (
            Column("Attack", "left"),
            Column("Norm", "left"),
            Column("ε"),
            *columns("Found", "Share"),
            Column("95 % interval", level=1),
            Column("Random points", level=1),
            Column("Verdict", "left"),
        ),
        rows,
        (*(_sentence(each) for each in results), *_about(results), SOURCE),
    )


def _verdict(result: PlantedResult) -> str:
    if not result.problems:
        return "no problem"
    if not result.passed:
        return "fails"
    return "passes, but easy" if result.easy else "passes"


def _sentence(result: PlantedResult) -> str:
    name = f"{result.attack} at epsilon {result.threat.epsilon}"
    if not result.problems:
        return (
            f"{name}: no problem could be made: the features ({result.features}) do not tell a "
            "point at this distance from its surroundings."
        )
    if not result.passed:
        missed = result.problems - result.found
        invalid = f" ({result.invalid} candidates were out of budget)" if result.invalid else ""
        return (
            f"{name}: would have missed {missed} of {result.problems} adversarial examples that "
            f"are there by construction{invalid}: adversarial errors measured with it on this "
            "model are too low. Use more steps or restarts, an attack without gradients, or adapt "
            "it: eot, backward, before."
        )
    easy = (
        f" Random points find {result.random_found} of them: at this budget the test says little."
        if result.easy
        else ""
    )
    return (
        f"{name}: found an adversarial example in {result.found} of {result.problems} problems."
        f"{easy}"
    )


def _about(results: Sequence[PlantedResult]) -> tuple[str, ...]:
    if not results:
        return ()
    first = results[0]
    left = first.made - first.problems
    left_out = f" {left} of {first.made} inputs gave no problem." if left else ""
    return (
        f"Each problem: two classes on the model's own features ({first.features}); a point on "
        f"the surface of the ball is adversarial, and so are points at least {CLOSENESS:.1%} of "
        f"the way to it.{left_out} An attack passes if it solves {PASSING:.0%}; if random points "
        f"solve more than {EASY:.0%}, passing shows little. Passing is necessary, not sufficient.",
    )
