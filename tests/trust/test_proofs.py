"""Proofs against attacks: what a run certifies, and claims that a proof excludes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import Attack
from gibbon.core.errors import SpecError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier
from gibbon.records.flags import Flag
from gibbon.records.run import CertifiedBound, RunRecord
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import decode_suite

KIND = "proved-example-attacked"
LIMIT = 80

Honest = Callable[[str], nn.Module]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tampering(Attack):
    """Makes the model answer differently the next time that it is asked, by an attribute."""

    norms = (Norm.LINF,)

    def propose(
        self,
        model: Classifier,
        inputs: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the inputs, a little brighter."""
        model.module.next_answers = 1  # type: ignore[assignment]
        yield (inputs + threat.radius / 2).clamp(0, 1)


class Reversible(nn.Module):
    """Reverses its answers as often as ``next_answers`` says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.next_answers = 0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        if self.next_answers:
            self.next_answers -= 1
            return -outputs
        return outputs


class Moody(nn.Module):
    """Reverses its answers for batches of the size of the data that are not the data."""

    def __init__(self, inner: nn.Module, clean: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.clean = clean.clone()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        if inputs.shape == self.clean.shape and not torch.equal(inputs, self.clean):
            return -outputs
        return outputs


def record_of(tmp_path: Path, published: list[dict[str, Any]], **changes: Any) -> RunRecord:
    """The record of a suite with published rows, on a sample of MNIST."""
    written = {
        "name": "proofs",
        "dataset": "mnist",
        "models": ["softmax"],
        "attacks": [{"name": "pgd", "epsilon": ["0.02", "0.1"], "steps": 5}],
        "published": [
            {"dataset": "mnist", "model": "softmax", "section": "1", **each} for each in published
        ],
        **changes,
    }
    suite = decode_suite(written, where="proofs.toml")
    return run_suite(suite, tmp_path / "run", settings=RunSettings(limit=LIMIT, device="cpu"))


def kinds(flags: tuple[Flag, ...]) -> list[Flag]:
    return [each for each in flags if each.kind == KIND]


def bounds_of(model: nn.Module | str, data: Batch, **arguments: Any) -> list[CertifiedBound]:
    given = {"attack": "pgd", "epsilon": [0.02, 0.1], "steps": 5, **arguments}
    return list(evaluate(model, data, **given).record.bounds)


# What a run certifies.


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_certified_error_is_above_attacked_error_for_honest_models(
    honest: Honest, mnist: Batch, norm: str
) -> None:
    names = ["softmax", "rbf", "maxout"] if norm == "linf" else ["softmax", "rbf"]
    models = {name: honest(name) for name in names}
    epsilon = [0.02, 0.1] if norm == "linf" else [0.2, 1.0]
    results = evaluate(models, mnist, attack="pgd", epsilon=epsilon, norm=norm, steps=10)
    rows = [each for each in results.record.evaluations if each.certified_error is not None]
    assert {each.model for each in rows} == set(models)
    for row in rows:
        assert row.worst_case_error is not None
        assert row.certified_error is not None
        assert row.certified_error >= row.worst_case_error
        assert row.certified_error_low is not None
        assert row.certified_error_low <= row.certified_error
    assert not kinds(results.record.flags)
    found = {(each.model, str(each.epsilon)): each for each in results.record.bounds}
    assert found["softmax", str(epsilon[0])].certified_by == "exact"
    assert found["rbf", str(epsilon[0])].certified_error < 0.5


def test_an_affine_model_is_certified_exactly(honest: Honest, mnist: Batch) -> None:
    inputs, labels = mnist
    model = honest("softmax")
    (bound,) = bounds_of(model, mnist, epsilon=0.05)
    weight = model.weight.detach().double()  # type: ignore[union-attr, operator]
    outputs = model(inputs).detach().double()
    robust = 0
    for row, label in enumerate(labels):
        low, high = (inputs[row] - 0.05).clamp(0, 1), (inputs[row] + 0.05).clamp(0, 1)
        slopes = weight[label] - weight
        moved = torch.where(
            slopes > 0, (low - inputs[row]).flatten(), (high - inputs[row]).flatten()
        )
        least = outputs[row, label] - outputs[row] + (slopes * moved).sum(1)
        robust += bool((least[torch.arange(10) != label] > 0).all())
    assert bound.proved == bound.proved_exact == robust
    assert bound.certified_error == 1 - robust / len(labels)


def test_worst_cases_have_the_bound_of_their_threat_model(honest: Honest, mnist: Batch) -> None:
    record = evaluate(honest("softmax"), mnist, attack="fgsm", epsilon=[0.02, 0.1]).record
    for row in record.worst_cases:
        (bound,) = [each for each in record.bounds if each.epsilon == row.epsilon]
        assert row.certified_error == bound.certified_error
        assert row.certified_by == bound.certified_by == "exact"
    assert all(each.certified_error is None for each in record.evaluations if each.unattacked)


def test_bounds_without_a_box_allow_more(honest: Honest, mnist: Batch) -> None:
    (inside,) = bounds_of(honest("softmax"), mnist, epsilon=0.05)
    (outside,) = bounds_of(honest("softmax"), mnist, epsilon=0.05, clip=False)
    assert outside.certified_error > inside.certified_error
    assert (inside.clip, outside.clip) == (True, False)


def test_none_computes_no_bound_and_all_computes_each(honest: Honest, mnist: Batch) -> None:
    net = nn.Sequential(nn.Flatten(), honest("maxout"))
    data = mnist[0][:6], mnist[1][:6]
    assert bounds_of(net, data, bounds="none") == []
    (cheap,) = bounds_of(net, data, epsilon=0.005, steps=2)
    assert cheap.certified_by == "ibp"
    assert cheap.proved_crown == 0
    assert "crown costs more than a tenth" in cheap.reason
    (every,) = bounds_of(net, data, epsilon=0.005, steps=2, bounds="all")
    assert every.certified_by == "crown"
    assert every.requested
    assert every.certified_error < cheap.certified_error


def test_a_stored_bound_is_not_computed_again(
    honest: Honest, mnist: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bounds_of(honest("softmax"), mnist, output=tmp_path)
    monkeypatch.setattr("gibbon.runner.proofs.prove.trace", None)  # would raise if it were called
    again = bounds_of(honest("softmax"), mnist, output=tmp_path)
    assert again == first
    assert {each.stem for each in (tmp_path / "bounds").glob("*.parquet")} == {
        each.digest for each in first
    }


def test_an_interrupted_proof_continues(
    honest: Honest, mnist: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gibbon.runner.proofs import prove

    whole = bounds_of(honest("softmax"), mnist, epsilon=0.05)
    computed: list[int] = []
    certify = prove.certify

    def interrupted(*args: Any, **options: Any) -> Any:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(args[1]))
        return certify(*args, **options)

    monkeypatch.setattr(prove, "MOST_TOGETHER", 8)
    monkeypatch.setattr(prove, "certify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bounds_of(honest("softmax"), mnist, epsilon=0.05, output=tmp_path)
    monkeypatch.setattr(prove, "certify", certify)
    again = bounds_of(honest("softmax"), mnist, epsilon=0.05, output=tmp_path)
    assert sum(computed) == 16
    assert again[0].proved == whole[0].proved
    assert again[0].forward_passes == whole[0].forward_passes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: torch.where(x > 0.5, 1.0, 0.0), "gt"),
        (lambda x: (x * 255).round() / 255, "round"),
        (lambda x: x - x.mean(), "mixes the examples"),
        (lambda x: x if x.max() > 0.5 else 1 - x, "mixes|decides"),
    ],
)
def test_a_model_that_can_not_be_traced_has_no_bound_and_a_reason(
    honest: Honest, mnist: Batch, change: Callable[[Tensor], Tensor], reason: str
) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = honest("softmax")

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(change(inputs))  # type: ignore[no-any-return]

    bounds = evaluate(Changed(), mnist, attack="noise-sign", epsilon=0.1).record.bounds
    assert bounds
    for bound in bounds:
        assert bound.certified_error is None
        assert bound.certified_by is None
        assert any(each in bound.reason for each in reason.split("|"))


def test_a_model_in_bfloat16_has_no_bound(honest: Honest, mnist: Batch) -> None:
    for bound in bounds_of(honest("softmax"), mnist, precision="bfloat16"):
        assert bound.certified_error is None
        assert "bfloat16" in bound.reason


def test_a_model_that_answers_at_random_has_no_bound(honest: Honest, mnist: Batch) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = honest("softmax")

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs + 0.1 * torch.randn(28, 28))  # type: ignore[no-any-return]

    assert bounds_of(Noisy(), mnist) == []


def test_a_model_that_answers_otherwise_when_it_is_traced_has_no_bound(
    honest: Honest, mnist: Batch
) -> None:
    class Evasive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = honest("softmax")

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.inner(inputs)
            return outputs if type(inputs) is Tensor else 10 * outputs

    for bound in bounds_of(Evasive(), mnist):
        assert bound.certified_error is None
        assert "not those of the operations" in bound.reason


# Claims that a proof excludes.


def test_an_attack_that_tampers_with_the_model_is_flagged(honest: Honest, mnist: Batch) -> None:
    model = Reversible(honest("softmax"))
    record = evaluate(model, mnist, attack=Tampering(), epsilon=0.02).record
    (flag,) = kinds(record.flags)
    assert flag.severity == "serious"
    assert flag.model == record.evaluations[0].model
    assert "our own bounds prove robust are misclassified" in flag.sentence
    (row,) = [each for each in record.evaluations if not each.unattacked]
    assert KIND in row.flags
    assert row.certified_error < row.adversarial_error


def test_a_model_that_turns_on_the_attacked_batch_is_flagged(honest: Honest, mnist: Batch) -> None:
    model = Moody(honest("softmax"), mnist[0])
    record = evaluate(model, mnist, attack="noise-sign", epsilon=0.02, batch_size=64).record
    assert kinds(record.flags)


def test_a_published_proof_of_an_attacked_example_is_flagged(tmp_path: Path) -> None:
    honest = record_of(tmp_path, [])
    (row,) = [each for each in honest.evaluations if str(each.epsilon) == "0.1"]
    assert row.adversarial_error > 0.2
    file = tmp_path / "proved.txt"
    file.write_text("# ids\n" + "\n".join(map(str, range(1000))) + "\n")
    claim = {"measure": "certified_error", "value": 1.0, "norm": "linf", "proved": str(file)}
    record = record_of(tmp_path, [{**claim, "epsilon": "0.1"}])
    (flag,) = kinds(record.flags)
    assert (flag.attack, str(flag.epsilon)) == ("pgd", "0.1")
    assert "the published proofs (1) prove robust" in flag.sentence


def test_more_errors_than_a_published_proof_allows_are_flagged(tmp_path: Path) -> None:
    record = record_of(
        tmp_path, [{"measure": "certified_error", "value": 0.05, "epsilon": "0.1", "norm": "linf"}]
    )
    (flag,) = kinds(record.flags)
    assert str(flag.epsilon) == "0.1"
    assert "the published proof (1) allows 5 %" in flag.sentence


# Near misses.


def test_a_published_proof_at_a_smaller_epsilon_excludes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "proved.txt"
    file.write_text("\n".join(map(str, range(1000))))
    claim = {"measure": "certified_error", "value": 1.0, "norm": "linf", "proved": str(file)}
    assert not kinds(record_of(tmp_path, [{**claim, "epsilon": "0.01"}]).flags)
    assert not kinds(record_of(tmp_path, [{**claim, "epsilon": "0.1", "norm": "l2"}]).flags)


def test_a_published_proof_of_examples_that_no_attack_claims_is_fine(tmp_path: Path) -> None:
    record = record_of(tmp_path, [], bounds=True)
    file = tmp_path / "proved.txt"
    from gibbon.records.proofs import read_proofs

    (bound,) = [each for each in record.bounds if str(each.epsilon) == "0.1"]
    proofs = read_proofs(tmp_path / "run", bound.digest)
    assert proofs is not None
    file.write_text("\n".join(map(str, proofs.example_id[proofs.proved])))
    claim = {"measure": "certified_error", "value": 1.0, "norm": "linf", "proved": str(file)}
    assert not kinds(record_of(tmp_path, [{**claim, "epsilon": "0.1"}]).flags)


def test_a_sample_may_exceed_a_published_bound_by_chance(tmp_path: Path) -> None:
    honest = record_of(tmp_path, [])
    (row,) = [each for each in honest.evaluations if str(each.epsilon) == "0.02"]
    value = round(row.worst_case_error - 0.01, 4)  # within the interval of a sample of 80
    claim = {"measure": "certified_error", "value": value, "epsilon": "0.02", "norm": "linf"}
    assert not kinds(record_of(tmp_path, [claim]).flags)


def test_an_attack_outside_the_box_is_not_held_to_a_proof_inside_it(tmp_path: Path) -> None:
    attack = {"name": "pgd", "epsilon": ["0.1"], "steps": 5, "clip": False}
    claim = {"measure": "certified_error", "value": 0.05, "epsilon": "0.1", "norm": "linf"}
    assert not kinds(record_of(tmp_path, [claim], attacks=[attack]).flags)


# Files of published proofs.


@pytest.mark.parametrize(
    ("text", "words"),
    [("1\ntwo\n", "line 2 must be the id"), ("99999\n", "has 10000 examples"), (None, "read")],
)
def test_a_wrong_file_of_published_proofs_fails_before_anything_is_computed(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "proved.txt"
    if text is not None:
        file.write_text(text)
    claim = {"measure": "certified_error", "value": 1.0, "norm": "linf", "proved": str(file)}
    with pytest.raises(SpecError, match=words):
        record_of(tmp_path, [{**claim, "epsilon": "0.1"}])
    assert not (tmp_path / "run").exists()
