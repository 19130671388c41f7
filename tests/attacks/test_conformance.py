"""Laws that every registered attack keeps, those of installed packages too."""

import random

import nets
import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.attacks import ATTACKS
from benchmark.attacks.base import Attack, build_attack, parameters_of, threats_of
from benchmark.classifier import Classifier
from benchmark.datasets.base import Batch
from benchmark.records import Verdict
from benchmark.rng import ExampleStreams, derive_key
from benchmark.snapshot import Snapshot
from benchmark.specs import AttackSpec
from benchmark.threat import Bounds, Norm, ThreatModel
from benchmark.verify import guarding, judge, propose

VARIANTS = {
    "pgd": [
        {"steps": 4},
        {"steps": 4, "restarts": 3, "keep": "best-loss"},
        {"steps": 4, "loss": "margin", "keep": "first-success"},
        {"steps": 3, "random_start": False, "step_size": "1/20", "keep": "best-loss"},
    ],
    "pgd-l1": [
        {"steps": 4, "restarts": 2, "sparsity": 0.8, "keep": "best-loss"},
        {"steps": 4, "random_start": False, "sparsity": 0, "keep": "first-success"},
    ],
    "bim": [{}, {"steps": 4, "step_size": "1/10", "target": "least-likely", "keep": "best-loss"}],
    "mi-fgsm": [
        {"steps": 4, "step_size": "1/10", "keep": "first-success"},
        {"steps": 4, "target": "second", "keep": "best-loss"},
    ],
    "di-mi-fgsm": [{"steps": 3, "probability": 1, "smallest": 0.4}],
    "ti-mi-fgsm": [{"steps": 3}],
    "vmi-fgsm": [{"steps": 3, "neighbours": 2}],
    "apgd-ce": [{"steps": 5}, {"steps": 4, "restarts": 2, "keep": "first-success"}],
    "apgd-dlr": [{"steps": 5, "keep": "first-success"}],
    "apgd-t": [{"steps": 4, "n_target_classes": 2}],
    "deepfool": [{"steps": 5}, {"steps": 5, "classes": 3}],
    "ddn": [
        {"steps": 15, "gamma": 0.2, "init_norm": "1/2"},
        {"steps": 15, "gamma": 0.2, "init_norm": "1/2", "target": "second"},
    ],
    "fmn": [{"steps": 15}, {"steps": 15, "target": "second"}],
    "fab": [{"steps": 4}, {"steps": 3, "restarts": 2}],
    "fab-t": [{"steps": 4, "target_classes": 2}, {"steps": 3, "restarts": 2}],
    "square": [{"queries": 30}, {"queries": 15, "restarts": 2, "target": "second"}],
    "lbfgs": [{"iterations": 3, "searches": 2, "init_constant": 1.0, "target": "second"}],
    "cw": [
        {"steps": 20, "searches": 3, "step_size": 0.05, "init_constant": 1.0},
        {"steps": 20, "searches": 2, "step_size": 0.05, "init_constant": 1.0, "target": "random"},
    ],
}
WIDE = Bounds(-2.0, 3.0)


def cases():
    for name in ATTACKS.names():
        for norm in ATTACKS.load(name).norms:
            for number, parameters in enumerate(VARIANTS.get(name, [{}])):
                yield pytest.param(name, norm, parameters, id=f"{name}-{norm}-{number}")


every_attack = pytest.mark.parametrize(("name", "norm", "parameters"), list(cases()))


def built(name: str, norm: Norm, parameters: dict, epsilon: object = "0.1") -> Attack:
    return build_attack(AttackSpec(name=name, norm=norm, epsilon=epsilon, **parameters))


def streams_for(batch: Batch, seed: int = 0) -> ExampleStreams:
    return ExampleStreams.derive(derive_key(seed, "conformance"), batch.ids)


def run(
    attack: Attack, classifier: Classifier, batch: Batch, threat: ThreatModel, *, seed: int = 0
) -> list[Tensor]:
    """All candidates, taken without the benchmark's guard."""
    tries = propose(attack, classifier, batch, threats=[threat], streams=streams_for(batch, seed))
    with classifier.evaluating():
        return list(next(tries))


def global_states() -> tuple[object, ...]:
    legacy = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), legacy.tolist()


@every_attack
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("epsilon", "bounds", "clip"),
    [("0.1", Bounds(0.0, 1.0), True), ("0.3", Bounds(0.0, 1.0), False), ("1/2", WIDE, True)],
)
def test_candidates_stay_in_budget_and_bounds(name, norm, parameters, kind, epsilon, bounds, clip):
    classifier = getattr(nets, kind)(bounds=bounds)
    batch = nets.random_batch(bounds=bounds)
    threat = nets.threat(epsilon, norm=norm, bounds=bounds if clip else None)
    attack = built(name, norm, parameters)
    for candidates in run(attack, classifier, batch, threat):
        assert candidates.shape == batch.inputs.shape
        assert candidates.dtype == batch.inputs.dtype
        with classifier.evaluating():
            judged = judge(classifier, batch, proposed=[candidates], threat=threat)
        assert judged.verdict.tolist() == [Verdict.VALID] * len(batch.labels)
        if clip:
            assert float(candidates.min()) >= bounds.low
            assert float(candidates.max()) <= bounds.high


@every_attack
def test_an_attack_touches_nothing_but_its_candidates(name, norm, parameters):
    classifier, batch = nets.conv(), nets.random_batch()
    inputs, labels, ids = (each.clone() for each in (batch.inputs, batch.labels, batch.ids))
    attack = built(name, norm, parameters)
    streams = streams_for(batch)
    keys = streams.keys.clone()
    described = dict(parameters_of(attack))
    with classifier.evaluating():
        snapshot = Snapshot(classifier.module)
        before = global_states()
        for candidates in attack.propose(
            classifier, batch.inputs, labels=batch.labels, threat=nets.threat(norm=norm),
            streams=streams,
        ):  # fmt: skip
            assert candidates.data_ptr() != batch.inputs.data_ptr()
        after = global_states()
        assert snapshot.difference() is None
    assert before == after
    assert torch.is_grad_enabled()
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.labels, labels)
    assert torch.equal(batch.ids, ids)
    assert torch.equal(streams.keys, keys)
    assert dict(parameters_of(attack)) == described
    assert all(parameter.grad is None for parameter in classifier.module.parameters())


@every_attack
def test_an_attack_works_where_gradients_are_off_outside(name, norm, parameters):
    classifier, batch = nets.mlp(), nets.random_batch(5)
    expected = run(built(name, norm, parameters), classifier, batch, nets.threat(norm=norm))
    with torch.no_grad():
        found = run(built(name, norm, parameters), classifier, batch, nets.threat(norm=norm))
        assert not torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@every_attack
def test_an_attack_is_determined_by_its_seed(name, norm, parameters):
    classifier, batch, threat = nets.mlp(), nets.random_batch(), nets.threat(norm=norm)
    attack = built(name, norm, parameters)
    first = run(attack, classifier, batch, threat)
    torch.manual_seed(99)
    again = run(attack, classifier, batch, threat)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@every_attack
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_splitting_or_reordering_a_batch_changes_nothing(name, norm, parameters, kind):
    classifier, batch, threat = getattr(nets, kind)(), nets.random_batch(12), nets.threat(norm=norm)
    attack = built(name, norm, parameters)
    whole = run(attack, classifier, batch, threat)
    order = torch.randperm(12, generator=nets.generator(1))
    for parts in (torch.arange(12).split(5), order.split(7), torch.arange(12).split(1)):
        pieces = [
            run(attack, classifier, Batch(batch.ids[p], batch.inputs[p], batch.labels[p]), threat)
            for p in parts
        ]
        for number, candidates in enumerate(whole):
            joined = torch.cat([piece[number] for piece in pieces])
            torch.testing.assert_close(joined, candidates[torch.cat(parts)], rtol=0, atol=1e-5)


@every_attack
@pytest.mark.parametrize("clip", [True, False])
def test_epsilon_0_is_the_identity_bit_for_bit(name, norm, parameters, clip):
    classifier, batch = nets.conv(), nets.random_batch()
    spec = AttackSpec(name=name, norm=norm, epsilon=0, clip=clip, **parameters)
    attack = build_attack(spec)
    (threat,) = threats_of(spec, attack, bounds=classifier.bounds)
    with classifier.evaluating():
        clean = classifier.predict(batch.inputs)
        for candidates in run(attack, classifier, batch, threat):
            same = candidates.view(torch.int32) == batch.inputs.view(torch.int32)
            assert bool(same.all())
            judged = judge(classifier, batch, proposed=[candidates], threat=threat)
            assert judged.answers is not None
            assert torch.equal(judged.answers.predicted, clean.argmax(1))
            assert torch.equal(judged.answers.confidence, classifier.outputs.confidence(clean))


@every_attack
@pytest.mark.parametrize("rule", [nets.PROBABILITIES, nets.LOG_SCORES], ids=repr)
def test_an_attack_serves_every_kind_of_output(name, norm, parameters, rule):
    classifier = nets.with_rule(rule)
    batch = nets.labelled(classifier, nets.random_batch())
    threat = nets.threat("0.3", norm=norm)
    with classifier.evaluating(), guarding(classifier, batch) as given:
        (tries,) = propose(
            built(name, norm, parameters), classifier, given.batch, threats=[threat],
            streams=streams_for(batch),
        )  # fmt: skip
        judged = judge(classifier, batch, proposed=tries, threat=threat)
    assert bool((judged.verdict == Verdict.VALID).all())
    assert float(judged.distance.max()) > 0.05


GRADIENT_ATTACKS = [case for case in cases() if not str(case.id).startswith("noise")]


@pytest.mark.parametrize(("name", "norm", "parameters"), GRADIENT_ATTACKS)
def test_a_larger_budget_misleads_more_of_a_linear_model(name, norm, parameters):
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(200))
    attack = built(name, norm, {**parameters, "step_size": None} if name == "pgd" else parameters)
    misled = []
    for epsilon in ("0", "0.02", "0.05", "0.1", "0.3"):
        threat = nets.threat(epsilon, norm=norm, bounds=None)
        with classifier.evaluating():
            tries = run(attack, classifier, batch, threat)
            judged = judge(classifier, batch, proposed=tries, threat=threat)
        misled.append(int(judged.any_misled.sum()))
    assert misled == sorted(misled)
    assert misled[0] == 0
    assert misled[-1] > misled[1]
