"""Distances and tries through the whole runner: from a search to the rows and the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import Run
from pydantic.dataclasses import dataclass as checked
from test_execute import MakeSuite, row
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel
from gibbon.metrics.nearest import error_within
from gibbon.models.classifier import Classifier
from gibbon.records.outcomes import Outcome, read_outcome
from gibbon.report import write_report
from gibbon.report.content.chapters import chapters
from gibbon.report.content.tables.distances import NEAREST
from gibbon.report.content.tables.worst_case import MEMBERS
from gibbon.runner.run_folder import RunFolder

SEARCH: dict[str, Any] = {
    "name": "deepfool",
    "norm": "linf",
    "epsilon": ["0.01", "0.05", "0.1", "0.3"],
}


def stored(folder: Path, digest: str) -> Outcome:
    outcome = read_outcome(folder / "outcomes", digest)
    assert outcome is not None
    return outcome


def test_every_error_is_the_curve_at_its_epsilon(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    record = run(suite(SEARCH, "fgsm", models=("one", "two")), batch_size=25)
    errors = set()
    for each in record.evaluations:
        if each.attack != "deepfool":
            assert each.nearest_found is None
            assert each.nearest_median is None
            continue
        outcome = stored(tmp_path / "run", each.digest)
        assert outcome.nearest is not None
        assert each.adversarial_error == error_within(outcome.nearest, float(each.epsilon))
        assert each.worst_case_error == each.adversarial_error
        assert each.nearest_found == np.isfinite(outcome.nearest).sum()
        assert each.clean_error == error_within(outcome.nearest, 0.0)
        errors.add(each.adversarial_error)
    assert len(errors) > 3
    ranks = row(record, "deepfool", "one", "0.1")
    assert ranks.nearest_q10 is not None
    assert ranks.nearest_median is not None
    assert ranks.nearest_q90 is not None
    assert 0 <= ranks.nearest_q10 <= ranks.nearest_median < ranks.nearest_q90


def test_quantiles_are_the_same_at_every_epsilon(run: Run, suite: MakeSuite) -> None:
    record = run(suite(SEARCH))
    found = {
        (each.nearest_found, each.nearest_q10, each.nearest_median, each.nearest_q90)
        for each in record.evaluations
        if each.attack == "deepfool"
    }
    assert len(found) == 1


def test_more_epsilons_cost_no_pass(run: Run, suite: MakeSuite, plant: planted.Plant) -> None:
    spent = []
    for place, epsilons in enumerate((["0.05"], SEARCH["epsilon"])):
        record = run(suite({**SEARCH, "epsilon": epsilons}), f"run {place}")
        rows = [each for each in record.evaluations if each.attack == "deepfool"]
        spent.append(
            (sum(each.forward_passes for each in rows), sum(each.backward_passes for each in rows))
        )
    assert spent[0] == spent[1]


def test_a_new_target_leaves_the_distances_there(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    before = run(suite(SEARCH, transfer=("deepfool",)))
    after = run(suite(SEARCH, models=("one", "two"), transfer=("deepfool",)))
    mine = [each for each in after.evaluations if each.model == "one"]
    assert [each.model_dump() for each in mine] == [
        each.model_dump() for each in before.evaluations
    ]
    for each in mine:
        if each.attack == "deepfool":
            assert len(stored(tmp_path / "run", each.digest).scores) == 2


def test_an_older_outcome_without_distances_is_read(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    asked = suite(SEARCH)
    before = run(asked)
    with RunFolder.open(tmp_path / "run", suite="planted") as folder:
        for each in before.evaluations:
            outcome = folder.read(each.digest)
            assert outcome is not None
            folder.write(each.digest, replace(outcome, nearest=None))
    after = run(asked)
    assert after.provenance.computed_cells == 0
    assert row(after, "deepfool", epsilon="0.1").nearest_found is None
    assert NEAREST not in [chapter.title for chapter in chapters(after)]
    errors = [[each.adversarial_error for each in record.evaluations] for record in (before, after)]
    assert errors[0] == errors[1]


def test_a_search_that_fails_has_no_distances(run: Run, suite: MakeSuite, plant: Any) -> None:
    plant.model("nan", lambda: planted.classifier(planted.NaNBeyond(1)))
    plant.attack("bad", planted.Raises)
    record = run(suite({"name": "bad", "epsilon": ["0.1"]}, SEARCH))
    failed = row(record, "bad")
    assert failed.status == "failed"
    assert failed.nearest_found is None
    assert row(record, "deepfool", epsilon="0.1").nearest_found is not None


@checked(frozen=True, kw_only=True, config=STRICT)
class Both(Attack):
    """Brightens, then darkens what brightening did not mislead."""

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the two."""
        return ("brightens", "darkens")

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        brighter = inputs + 0.5 * threat.radius * (1 - inputs)
        yield brighter
        done = classifier.predict(brighter).argmax(1) != labels
        darker = inputs - threat.radius * inputs * (inputs > 0.3)
        yield torch.where(done.view(-1, 1, 1, 1), brighter, darker)


@pytest.mark.parametrize("batch_size", [7, 60])
def test_members_share_out_what_a_list_misled(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path, batch_size: int
) -> None:
    plant.attack("both", Both)
    asked = suite({"name": "both", "epsilon": ["0.1", "0.6"]}, models=("one", "two"))
    record = run(asked, batch_size=batch_size)
    assert len(record.members) == 2 * 2 * 2
    for each in record.evaluations:
        if each.attack != "both":
            continue
        first, second = (member for member in record.members if member.digest == each.digest)
        assert (first.member, second.member) == ("brightens", "darkens")
        assert first.given == each.clean_correct
        assert second.given == first.given - first.misled
        assert second.error_after == each.worst_case_error
        outcome = stored(tmp_path / "run", each.digest)
        assert outcome.misled_by is not None
        assert ((outcome.misled_by >= 0) == outcome.any_misclassified).all()
    assert {each.misled for each in record.members} > {0}
    (chapter,) = [each for each in chapters(record) if each.title == MEMBERS.title]
    assert len(chapter.tables[0].rows) == len(record.members)


def test_a_list_of_attacks_has_a_row_for_each(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    listed = {
        "name": "worst-of",
        "epsilon": "0.1",
        "attacks": [{"name": "fgsm"}, {"name": "deepfool", "steps": 5}],
    }
    record = run(suite(listed, "fgsm"), publish=write_report)
    first, second = record.members
    assert (first.member, second.member) == ("fgsm", "deepfool")
    assert first.given == row(record, "none").clean_correct
    assert first.error_after == row(record, "fgsm").worst_case_error
    assert second.error_after == row(record, "worst-of").adversarial_error
    rows = (tmp_path / "run" / "members.csv").read_text().splitlines()
    assert len(rows) == 1 + len(record.members)
    run(suite("fgsm"), publish=write_report)
    assert not (tmp_path / "run" / "members.csv").exists()


def test_one_try_has_no_column(run: Run, suite: MakeSuite, tmp_path: Path) -> None:
    record = run(suite("fgsm", {"name": "pgd", "epsilon": "0.1", "steps": 2, "restarts": 3}))
    assert record.members == ()
    assert stored(tmp_path / "run", row(record, "fgsm").digest).misled_by is None
    assert stored(tmp_path / "run", row(record, "pgd").digest).misled_by is not None
