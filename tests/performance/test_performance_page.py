"""The harness that times, and the page that is made of its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import Machine, Record, Row, text_table
from page import page
from turns import Contestant, Spread, take_turns

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
RECORD = ROOT / "results" / "performance" / "record.json"
MACHINE = Machine(
    date="2026-01-01",
    clock="wall",
    processor="a processor",
    processors=2,
    threads=2,
    vector_instructions="AVX2",
    system="Linux",
    python="3.11",
    torch="2.15",
    peers={"foolbox": "3.3.4", "ART": None},
)


class Clock:
    """Stands still but for what is worked."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: Callable[[], float], error: float) -> Callable[[], list[float]]:
        def work() -> list[float]:
            self.now += seconds()
            return [error]

        return work


def row(**given: object) -> Row:
    plain = {
        "section": "fgsm",
        "work": "FGSM",
        "who": "gibbon",
        "seconds": 0.1,
        "rounds": 3,
        "errors": (0.5,),
    }
    return Row.model_validate(plain | given)


def rival(ratio: float, bar: float) -> Row:
    return row(who="foolbox", times_ours=Spread(ratio, ratio, ratio), bar=bar)


def test_noise_that_hits_a_round_leaves_the_ratio():
    clock, slow = Clock(), iter([1, 1, 10, 10, 1, 1, 5, 5, 1, 1])
    one = Contestant("one", clock.work(lambda: 0.2 * next(slow), 0.5))
    other = Contestant("other", clock.work(lambda: 0.1 * next(slow), 0.25))
    timings = take_turns([one, other], seconds=1.2, clock=clock)
    assert len(timings["one"].seconds) == 4  # the first round warmed up
    assert Spread.of(timings["one"], timings["other"]).median == pytest.approx(2.0)
    assert timings["other"].errors == (0.25,)


def test_each_round_begins_with_another():
    order: list[str] = []

    def note(who: str) -> list[float]:
        order.append(who)
        return []

    clock = Clock()
    contestants = [Contestant(who, lambda who=who: note(who)) for who in "abc"]
    clock.now = 0.0
    ticking = iter(range(1000))
    take_turns(contestants, seconds=1.0, least=3, clock=lambda: next(ticking) * 0.1)
    assert [order[at] for at in range(3, len(order), 3)] == ["a", "b", "c"]


def test_a_long_first_round_counts():
    clock = Clock()
    work = Contestant("one", clock.work(lambda: 10.0, 0.5))
    assert take_turns([work], seconds=1.0, least=2, clock=clock)["one"].seconds == (10.0, 10.0)


@pytest.mark.parametrize(
    ("held", "missed"),
    [
        (rival(1.99, 2.0), True),
        (rival(1.996, 2.0), False),
        (row(times_floor=Spread(1.11, 1, 2), floor_bar=1.1), True),
        (row(times_floor=Spread(1.104, 1, 2), floor_bar=1.1), False),
        (row(), False),
    ],
)
def test_a_bar_is_missed_by_the_figures_that_are_printed(held: Row, missed: bool):
    assert held.missed == missed
    assert any("MISSED" in line for line in text_table([held])) == missed


def test_a_record_survives_a_round_trip(tmp_path: Path):
    record = Record(machine=MACHINE, rows=(row(), rival(2.5, 2.0)))
    record.write(tmp_path / "there" / "record.json")
    assert Record.read(tmp_path / "there" / "record.json") == record


def test_the_page_shows_rows_machine_and_what_is_missed(tmp_path: Path):
    Record(machine=MACHINE, rows=(row(), rival(1.5, 2.0))).write(tmp_path / "record.json")
    text = "".join(
        f"<!-- gibbon:{region} record.json --><!-- /gibbon -->\n"
        for region in ("speed fgsm", "machine", "missed")
    )
    made = page(text, folder=tmp_path)
    assert "| **gibbon** | 100.0 ms |  |  |  |  | 50.0% |" in made
    assert "| foolbox | 100.0 ms | 1.50 (1.50–1.50) | ≥ 2.00 **missed** |" in made
    assert "foolbox 3.3.4; not installed: ART" in made
    assert "FGSM: foolbox takes 1.50 times as long, not 2.00" in made
    assert page(made, folder=tmp_path) == made


def test_the_page_is_in_step_with_the_record():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, folder=PAGE.parent) == text


def test_the_record_names_no_machine_and_no_path():
    assert "/" not in json.dumps(json.loads(RECORD.read_text())["machine"])
