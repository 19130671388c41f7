"""Operations and reads back to the host, of ours and of others, counted on a played device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import counted_attacks
import counts
import pytest
import torch
from operations import count
from played_device import played

from gibbon.attacks import ATTACKS

RECORD = Path(__file__).parents[2] / "results" / "performance" / "counts.json"
PGD, APGD = "a step of PGD, the last iterate", "a step of APGD, the best loss"
STOPPING = "the first success"
# These read no value back in a step, and those that stop early at most one.
NEVER = ("FGSM", "PGD", "BIM", "APGD", "rotation", "noise")

pytestmark = pytest.mark.played


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    with played() as found:
        yield found


@pytest.fixture(scope="module")
def now() -> dict[tuple[str, str], counts.Count]:
    return {(each.work, each.who): each for each in counts.counts(everything=False).rows}


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[str, str], counts.Count]:
    record = counts.Counts.model_validate_json(RECORD.read_text(encoding="utf-8"))
    return {(each.work, each.who): each for each in record.rows}


def test_a_step_reads_nothing_back_unless_it_may_be_the_last(now):
    looked = []
    for work, each in ((work, each) for (work, _), each in now.items()):
        if "a batch of" not in work and any(name in work for name in NEVER):
            assert each.reads <= (1 if STOPPING in work else 0), work
            looked.append(STOPPING in work)
    assert looked.count(True) == 3
    assert looked.count(False) >= 16


def test_every_shipped_attack_is_counted(now):
    counted = {each.name for each in counted_attacks.OURS}
    assert counted | {*counted_attacks.LISTS} == set(ATTACKS.names())
    assert len(now) == len(counted_attacks.OURS) - len(counted_attacks.SLOW) + 2


def test_a_step_launches_less_than_those_of_others(now, recorded):
    for work, others in (
        (PGD, ("torchattacks", "foolbox", "advlib")),
        ("a step of BIM, the last iterate", ("torchattacks", "foolbox")),
        ("a step of MI-FGSM", ("torchattacks", "foolbox")),
        (APGD, ("torchattacks", "pyautoattack")),
        ("a step of APGD on the logits ratio", ("pyautoattack",)),
        ("a step of APGD, targeted, 3 targets", ("pyautoattack",)),
        ("a step of FAB", ("pyautoattack",)),
        ("a step of FAB, targeted, 3 targets", ("pyautoattack",)),
        ("a step of Square", ("torchattacks", "pyautoattack")),
        ("a step of DDN", ("foolbox", "advlib")),
        ("a step of FMN", ("foolbox",)),
    ):
        ours = now[work, counts.US].launches
        for other in others:
            assert ours < recorded[work, other].launches, (work, other)


@pytest.mark.slow
def test_others_launch_what_is_recorded_of_them(recorded):
    """For the releases that are installed here, if they are those of the record."""
    record = counts.Counts.model_validate_json(RECORD.read_text(encoding="utf-8"))
    found = counts.counts(everything=True)
    for each in found.rows:
        if each.who != counts.US and found.peers[each.who] == record.peers.get(each.who):
            before = recorded[each.work, each.who]
            assert each.launches == pytest.approx(before.launches, rel=0.1), each


def test_nothing_has_come_to_cost_more_than_is_recorded(now, recorded):
    for key, before in recorded.items():
        if key in now:
            assert now[key].launches <= before.launches, key
            assert now[key].reads <= before.reads, key


def test_an_epsilon_more_reads_back_its_check_and_its_results(now):
    one, five = (
        now[f"a batch of FGSM at {each}", counts.US] for each in ("1 epsilon", "5 epsilons")
    )
    assert one.reads <= 6
    assert (five.reads - one.reads) / 4 <= 2


def test_operations_and_reads_are_counted_on_the_device_only(device: torch.device):
    here, there = torch.arange(6.0), torch.arange(6.0, device=device)
    assert count(lambda: (here + 1).sum().item()).launches == 0
    found = count(lambda: (there.view(2, 3) + 1).sum())
    assert (found.launches, found.reads) == (2, 0)
    for read in (
        lambda: there[0].item(),
        lambda: there.cpu(),
        lambda: there.nonzero(),
        lambda: there[there > 2],
        lambda: bool(there.any()),
        lambda: here.copy_(there),
        lambda: torch.equal(there, there),
    ):
        assert count(read).reads == 1
