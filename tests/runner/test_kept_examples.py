"""Kept adversarial examples: what was judged, whether taken during a run or completed after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import planted
import pytest
import torch
from numpy.typing import NDArray

from gibbon.core.errors import RunFolderError, SpecError
from gibbon.core.shard import Shard
from gibbon.records.kept_examples import EXAMPLES, KeptExamples, clean_folder
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.run import Evaluation, RunRecord
from gibbon.runner.execute import run_job
from gibbon.runner.merge_shards import merge_shards
from gibbon.runner.run_shard import run_shard
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import decode_suite
from gibbon.specs.suite import Suite

MEMBERS = [{"name": "noise-sign"}, {"name": "pgd", "steps": 2}, {"name": "bim", "steps": 3}]
ATTACKS: list[dict[str, Any]] = [
    {"name": "fgsm", "epsilon": ["0.05", "0.2"]},
    {"name": "fgsm", "label": "along", "epsilon": ["0.05", "0.3"], "carried": True},
    {"name": "pgd", "label": "carried", "epsilon": ["0.02", "0.1"], "steps": 2, "carried": True},
    {"name": "worst-of", "label": "list", "epsilon": "0.05", "attacks": MEMBERS},
]


def suite_of(**more: Any) -> Suite:
    written = {"name": "kept", "dataset": "squares", "models": ["one"], "attacks": ATTACKS}
    return decode_suite({**written, **more}, where="kept.toml")


def attacked(record: RunRecord, folder: Path) -> Iterator[tuple[Evaluation, Outcome, str]]:
    """Yields each attacked row with its outcome and the digest of its model."""
    cards = {card.name: card.digest for card in record.models}
    for row in record.evaluations:
        if not row.unattacked:
            outcome = read_outcome(folder / OUTCOMES, row.digest)
            assert outcome is not None
            yield row, outcome, cards[row.model]


def inputs(store: KeptExamples, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    found = [store.read(each) for each in ids.tolist()]
    assert all(each is not None for each in found)
    return np.stack([each for each in found if each is not None])


def check(record: RunRecord, folder: Path, *, models: dict[str, torch.nn.Module]) -> int:
    """Checks the kept examples of every cell against its outcome, and returns their number.

    The model gives the recorded answers to them, and they are as far from the clean inputs as it is
    recorded.
    """
    count = 0
    clean = KeptExamples(folder, clean_folder(record.datasets[0].digest))
    for row, outcome, model in attacked(record, folder):
        store = KeptExamples(folder, row.digest)
        kept = store.has(outcome.example_id)
        ids = outcome.example_id[kept]
        count += len(ids)
        if not len(ids):
            continue
        adversarial = inputs(store, ids)
        with torch.no_grad():
            predicted = models[row.model](torch.from_numpy(adversarial)).argmax(1).numpy()
        assert np.mean(predicted == outcome.scores[model].predicted[kept]) > 0.98  # rounding
        far = np.abs(adversarial - inputs(clean, ids)).reshape(len(ids), -1).max(1)
        np.testing.assert_allclose(far, outcome.distance[kept], atol=1e-5)
    return count


@pytest.fixture
def models() -> dict[str, torch.nn.Module]:
    return {"one": planted.Rows(1), "two": planted.Rows(2)}


def test_all_examples_are_kept_as_they_were_judged(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    record = run(suite_of(), keep_examples="all", batch_size=7)
    cells = sum(not each.unattacked for each in record.evaluations)
    assert check(record, tmp_path / "run", models=models) == cells * record.datasets[0].examples
    found = {path.name for path in (tmp_path / "run" / EXAMPLES).iterdir()}
    assert len(found) == cells + 1  # no members of the list, and the clean inputs


def test_a_finished_run_keeps_what_is_requested_afterwards(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    run(suite_of())
    assert not (tmp_path / "run" / EXAMPLES).exists()
    record = run(suite_of(), keep_examples="all")
    cells = sum(not each.unattacked for each in record.evaluations)
    assert record.provenance.computed_cells == 0
    assert check(record, tmp_path / "run", models=models) == cells * record.datasets[0].examples


def test_misclassified_ones_alone_and_a_number_of_each_cell(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    record = run(suite_of(keep_examples="misclassified"))
    check(record, tmp_path / "run", models=models)
    for row, outcome, model in attacked(record, tmp_path / "run"):
        kept = KeptExamples(tmp_path / "run", row.digest).has(outcome.example_id)
        np.testing.assert_array_equal(kept, outcome.misclassified(model))
    record = run(suite_of(), "some", keep_examples=5)
    places = [
        set(KeptExamples(tmp_path / "some", row.digest).places)
        for row, _, _ in attacked(record, tmp_path / "some")
    ]
    assert {len(each) for each in places} == {5}
    assert all(each == places[0] for each in places)


def test_an_interrupted_run_keeps_them_when_it_is_resumed(
    run: planted.Run,
    models: dict[str, torch.nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, attack = [0], run_job._run_job

    def interrupted(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return attack(*arguments)

    monkeypatch.setattr(run_job, "_run_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(suite_of(), keep_examples="all")
    before = {path.name for path in (tmp_path / "run" / EXAMPLES).iterdir()}
    assert before
    record = run(suite_of(), keep_examples="all")
    cells = sum(not each.unattacked for each in record.evaluations)
    assert check(record, tmp_path / "run", models=models) == cells * record.datasets[0].examples


def test_damaged_and_lost_files_are_made_again(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    record = run(suite_of(), keep_examples="all")
    rows = [row for row, _, _ in attacked(record, tmp_path / "run")]
    (file,) = KeptExamples(tmp_path / "run", rows[0].digest).files
    file.write_bytes(file.read_bytes()[:100])
    shutil.rmtree(KeptExamples(tmp_path / "run", rows[1].digest).folder)
    shutil.rmtree(tmp_path / "run" / EXAMPLES / clean_folder(record.datasets[0].digest))
    record = run(suite_of(), keep_examples="all")
    assert check(record, tmp_path / "run", models=models) == len(rows) * record.datasets[0].examples


def test_a_merge_has_the_examples_of_all_shards(
    plant: planted.Plant, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    settings = RunSettings(device="cpu", examination=False, keep_examples="all")
    folders = [tmp_path / str(index) for index in (1, 2)]
    for index, folder in enumerate(folders, 1):
        run_shard(suite_of(), folder, shard=Shard(index, 2), settings=settings)
    record = merge_shards(folders, tmp_path / "whole", settings=RunSettings(device="cpu"))
    rows = sum(not each.unattacked for each in record.evaluations)
    assert check(record, tmp_path / "whole", models=models) == rows * record.datasets[0].examples
    lost = next((folders[0] / EXAMPLES).glob("*/*.npz"))
    lost.unlink()
    with pytest.raises(RunFolderError, match=lost.name):
        merge_shards(folders, tmp_path / "again", settings=RunSettings(device="cpu"))


def test_the_size_is_said_before_and_a_full_disk_is_refused(
    run: planted.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(RunFolderError, match=r"keeps .* adversarial examples of 7 attacked cells"):
        run(suite_of(), keep_examples="all")
    assert not (tmp_path / "run" / OUTCOMES).exists()


@pytest.mark.parametrize("wrong", ["some", -1, 1.5, True, ""])
def test_other_values_are_refused_with_what_is_expected(wrong: Any) -> None:
    with pytest.raises(SpecError, match="all, misclassified, or a whole number"):
        RunSettings(keep_examples=wrong)
    with pytest.raises(SpecError, match="all, misclassified, or a whole number"):
        suite_of(keep_examples=wrong)


def test_cells_in_processes_of_their_own_keep_theirs(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    record = run(suite_of(attacks=ATTACKS[:1]), keep_examples="all", isolate=True)
    assert check(record, tmp_path / "run", models=models) == 2 * record.datasets[0].examples


def test_deferred_scoring_keeps_them_too(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    more = {"models": ["one", "two"], "transfer": {"attacks": ["fgsm"]}, "attacks": ATTACKS[:1]}
    record = run(suite_of(**more), keep_examples="all", models_in_memory=1)
    assert check(record, tmp_path / "run", models=models) == 4 * record.datasets[0].examples


def test_errors_alone_are_kept_where_they_were_found(
    run: planted.Run, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    record = run(suite_of(error_only=True), keep_examples="misclassified")
    assert check(record, tmp_path / "run", models=models) > 0
