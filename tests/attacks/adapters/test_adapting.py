"""What all adapters share, shown on a made-up library with one function an attack."""

import importlib
import inspect
import random
import sys
import warnings
from typing import Literal

import asking
import nets
import numpy as np
import pytest
import torch
from torch import Tensor

from gibbon.attacks.adapters import ATTACK_SOURCES, AttackSource
from gibbon.attacks.adapters.adapting import RESERVED, Library, LibraryAttack, Task, adapt
from gibbon.attacks.base import SearchMethod, parameters_of
from gibbon.attacks.factory import build_attack
from gibbon.core.errors import AttackError, OutputError, RequestError, SpecError, UnknownNameError
from gibbon.core.registry import Entry
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel, Verdict
from gibbon.models.classifier import Classifier
from gibbon.runner.plan.cell_digest import attack_part
from gibbon.specs.suite import AttackSpec

LIBRARY = Library("oddlib", "odd-lib", "pip install odd-lib", "It wants an old numpy.")
WIDE = Bounds(-2.0, 3.0)
TASKS: list[Task] = []


def signature(
    model, eps, steps: int = 10, alpha=0.5, start=True, kind="a", targeted=False, to=None
):
    """What the attacks of the made-up library take."""


def adapted(run, **changes: object):
    def noted(task: Task) -> Tensor:
        TASKS.append(task)
        return run(task)

    foreign = {
        "name": "Odd",
        "library": LIBRARY,
        "norms": (Norm.LINF, Norm.L2),
        "run": noted,
        "signature": inspect.signature(signature),
        "reserved": {"eps": "the budget is the suite's `epsilon`"},
    }
    return adapt(LibraryAttack(**{**foreign, **changes}), module=__name__)


def upwards(task: Task) -> Tensor:
    return (task.inputs + task.epsilon).clamp(task.bounds.low, task.bounds.high)


@pytest.fixture
def odd(plant, monkeypatch):
    """Registers attacks of the made-up library as ``odd:NAME``."""
    TASKS.clear()
    plant("oddlib", __version__="1.2")
    kinds = {}

    class Source(AttackSource):
        def attack(self, name: str):
            if name not in kinds:
                raise LIBRARY.unknown(name, known=list(kinds))
            return kinds[name]

    ATTACK_SOURCES.names()
    source = Source()
    monkeypatch.setitem(ATTACK_SOURCES._entries, "odd", Entry("odd", "made up", lambda: source))

    def add(name: str, run, **changes: object) -> None:
        kinds[name] = adapted(run, name=name, **changes)

    add("Up", upwards)
    return add


def test_fields_are_the_librarys_parameters_with_its_defaults(odd):
    attack = asking.built("odd:Up", alpha="2/255", steps=7)
    assert parameters_of(attack) == {
        "steps": 7,
        "alpha": 2 / 255,
        "start": True,
        "kind": "a",
        "to": None,
        "release": "odd-lib 1.2",
    }
    asking.asked(attack, nets.mlp(), nets.random_batch(3))
    expected = {"steps": 7, "alpha": 2 / 255, "start": True, "kind": "a", "to": None}
    assert TASKS[-1].parameters == expected


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"stpes": 3}, ".stpes: attack 'odd:Up' has no parameter 'stpes'; did you mean 'steps'?"),
        ({"steps": "many"}, ".steps: Input should be a valid integer, got 'many'"),
        ({"steps": True}, ".steps: Input should be a valid integer, got True"),
        ({"alpha": "long"}, """.alpha: must be a number such as 0.01 or "2/255", got 'long'"""),
        ({"start": 1}, ".start: Input should be a valid boolean, got 1"),
        ({"kind": 3}, ".kind: Input should be a valid string, got 3"),
        ({"eps": 0.1}, ".eps: attack 'odd:Up' takes no 'eps' here: the budget is the suite's"),
        ({"targeted": True}, "takes no 'targeted' here: labels are the true classes"),
        ({"model": "mine"}, "takes no 'model' here: it is the suite's model"),
        ({"release": "2"}, "has no parameter 'release'"),
        ({"norm": "l1"}, ".norm: attack 'odd:Up' works in linf, l2, not in l1"),
    ],
)
def test_a_wrong_parameter_is_told_with_its_place(odd, parameters, fault):
    with pytest.raises(SpecError) as told:
        asking.built("odd:Up", **parameters)
    assert str(told.value).startswith(f"{asking.HERE}.")
    assert fault in str(told.value)


def listing(model, eps, kinds: list[Literal["a", "b"]] | None = None):
    """Takes a list of certain names."""


def test_names_in_a_list_are_checked_and_may_be_written_as_one_text(odd):
    odd("Up", upwards, signature=inspect.signature(listing))
    for written, kept in (
        (["b", "a"], ["b", "a"]),
        ("b, a", ["b", "a"]),
        ("a", ["a"]),
        (None, None),
    ):
        assert parameters_of(asking.built("odd:Up", kinds=written))["kinds"] == kept
    with pytest.raises(SpecError, match=r"kinds\[1\]: Input should be 'a' or 'b', got 'c'"):
        asking.built("odd:Up", kinds=["a", "c"])


def test_a_parameter_without_a_default_is_asked_for(odd):
    odd("Needs", upwards, signature=inspect.signature(lambda model, strength: None))
    with pytest.raises(SpecError, match="strength: is missing"):
        asking.built("odd:Needs")


def test_an_unknown_name_is_told_with_the_nearest(odd):
    with pytest.raises(SpecError, match=r"suite.toml: attacks\[0\]\.name: unknown attack of odd-lib"
                       r" 'Upp'; did you mean 'Up'\?"):  # fmt: skip
        asking.built("odd:Upp")
    with pytest.raises(
        UnknownNameError, match=r"unknown attack source 'foolbx'; did you mean 'foo"
    ):
        asking.built("foolbx:LinfPGD")


@pytest.mark.parametrize(
    ("name", "module", "line"),
    [
        ("foolbox:LinfPGD", "foolbox", "foolbox is not installed: pip install foolbox."),
        (
            "torchattacks:PGD",
            "torchattacks",
            "torchattacks is not installed: pip install --no-deps torchattacks, and pip install "
            "scipy tqdm requests. Its own requirement of requests~=2.25.1 conflicts",
        ),
        ("art:DeepFool", "art", "is not installed: pip install adversarial-robustness-toolbox."),
        ("advlib:fmn", "adv_lib", "adv-lib is not installed: pip install --no-deps adv-lib, and"),
        ("autoattack:standard", "pyautoattack", "is not installed: pip install pyautoattack."),
    ],
)
def test_a_library_that_is_not_there_is_told_with_its_pip_line(absent, name, module, line):
    absent(module)
    with pytest.raises(SpecError) as told:
        asking.built(name)
    assert str(told.value).startswith(f"{asking.HERE}.name: ")
    assert line in str(told.value)


def test_whether_a_source_is_installed_is_asked_of_what_it_imports():
    ours = [each for each in ATTACK_SOURCES.entries() if each.origin == "gibbon"]
    assert len(ours) == 5
    for entry in ours:
        adapter = importlib.import_module(f"gibbon.attacks.adapters.{entry.name}")
        assert entry.package == adapter.LIBRARY.module


def test_a_library_that_fails_to_import_says_what_it_lacks(absent):
    absent("oddlib")
    with pytest.raises(
        RequestError, match=r"odd-lib is not installed: pip install odd-lib. It wan"
    ):
        LIBRARY.load()
    inner = Library("json", "json-lib", "pip install json-lib")
    with pytest.raises(RequestError, match=r"json-lib can't be imported \(No module named"):
        inner.load("nothing")


def test_results_are_filed_under_library_version_class_and_parameters(odd, plant):
    one = asking.built("odd:Up", steps=3)
    assert one == asking.built("odd:Up", steps=3)
    name, kind, _, parameters, _ = attack_part(one)
    assert (name, kind) == (__name__, "Up")
    assert parameters["release"] == "'odd-lib 1.2'"
    assert parameters["steps"] == "3"
    plant("oddlib", __version__="1.3")
    odd("Up", upwards)
    assert attack_part(asking.built("odd:Up", steps=3)) != attack_part(one)


def test_the_label_of_tables_is_made_of_the_name():
    assert AttackSpec(name="odd:Up", epsilon=1).label == "odd-Up"
    assert AttackSpec(name="odd:Up", epsilon=1, label="ours").label == "ours"
    assert AttackSpec(name="pgd", epsilon=1).label == "pgd"


@pytest.mark.parametrize("name", ["odd:", ":Up", "odd:Up:more", "odd: Up", "odd:../Up"])
def test_a_name_has_one_scheme_and_one_name(name):
    with pytest.raises(ValueError, match="name"):
        AttackSpec(name=name, epsilon=1)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("bounds", [Bounds(0.0, 1.0), WIDE], ids=["unit", "wide"])
def test_candidates_come_back_in_the_units_of_the_model(odd, bounds, unit, clip):
    odd("Up", upwards, unit=unit)
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    attack = asking.built("odd:Up")
    threat = nets.threat("1/2", bounds=bounds if clip else None)
    candidates = asking.asked(attack, classifier, batch, threat)
    expected = batch.inputs + 0.5
    if clip:
        expected = expected.clamp(bounds.low, bounds.high)
        assert float(candidates.max()) <= bounds.high
    torch.testing.assert_close(candidates, expected, rtol=0, atol=2e-6)
    task = TASKS[-1]
    if unit:
        assert task.bounds == Bounds(0.0, 1.0)
        assert 0 <= float(task.inputs.min()) <= float(task.inputs.max()) <= 1
    assert asking.judged(attack, classifier, batch, clip=clip).verdict.unique().tolist() == [0]


def test_what_does_not_move_stays_bit_for_bit_on_another_scale(odd):
    odd("Still", lambda task: task.inputs, unit=True)
    batch = nets.random_batch(bounds=WIDE)
    threat = nets.threat("0.1", bounds=WIDE)
    candidates = asking.asked(asking.built("odd:Still"), nets.mlp(bounds=WIDE), batch, threat)
    assert torch.equal(candidates, batch.inputs)


def test_bounds_hold_the_inputs_although_float32_rounds_them_out(odd):
    bounds = Bounds(-0.1, 0.1)  # as float32 both are farther out
    classifier, batch = nets.mlp(bounds=bounds), nets.random_batch(bounds=bounds)
    inputs = torch.where(batch.inputs > 0, bounds.high, bounds.low)
    assert float(inputs.max()) > bounds.high
    asking.asked(asking.built("odd:Up"), classifier, nets.Batch(batch.ids, inputs, batch.labels))
    assert TASKS[-1].bounds.low <= float(TASKS[-1].inputs.min())
    assert TASKS[-1].bounds.high >= float(TASKS[-1].inputs.max())


def test_the_view_gives_the_librarys_batch_the_models_logits(odd):
    classifier = nets.with_rule(nets.PROBABILITIES)
    seen = []

    def look(task: Task) -> Tensor:
        seen.append(task.model(task.inputs).detach())
        return task.inputs

    odd("Look", look)
    batch = nets.random_batch()
    asking.asked(asking.built("odd:Look"), classifier, batch)
    with classifier.evaluating():
        expected = classifier.predict(batch.inputs)
    torch.testing.assert_close(seen[0].softmax(1), expected)
    scores = nets.with_rule(nets.LOG_SCORES)
    asking.asked(asking.built("odd:Look"), scores, batch)
    with scores.evaluating():
        assert torch.equal(seen[1], scores.predict(batch.inputs))


def test_a_probability_of_zero_stays_a_finite_logit():
    logits = nets.PROBABILITIES.as_logits(torch.tensor([[1.0, 0.0]]))
    assert logits.tolist()[0][0] == 0.0
    assert bool(torch.isfinite(logits).all())


def test_flat_inputs_reach_the_library_as_pictures(odd):
    classifier = Classifier(torch.nn.Linear(5, 3), classes=3, input_shape=(5,))
    batch = nets.random_batch(4, shape=(5,))
    candidates = asking.asked(asking.built("odd:Up"), classifier, batch)
    assert TASKS[-1].inputs.shape == (4, 1, 1, 5)
    assert TASKS[-1].model(TASKS[-1].inputs).shape == (4, 3)
    assert candidates.shape == batch.inputs.shape


def test_passes_that_a_library_makes_are_counted(odd):
    def twice(task: Task) -> Tensor:
        leaf = task.inputs.requires_grad_()
        task.model(leaf).sum().backward()
        task.model(leaf.detach()[:2])
        return leaf

    odd("Twice", twice)
    classifier = nets.mlp()
    asking.asked(asking.built("odd:Twice"), classifier, nets.random_batch(7))
    assert (classifier.passes.forward, classifier.passes.backward) == (9, 7)


def rough(task: Task) -> Tensor:
    """Does all that a library should not do to a model, the generators and the terminal."""
    task.model.train()
    task.model.requires_grad_(True)
    task.model.register_forward_hook(lambda *_: None)
    task.model.to(torch.float64)
    for parameter in task.model.parameters():
        parameter.data.add_(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    sys.settrace(None)
    task.inputs.zero_()
    task.labels.zero_()
    print("progress")  # noqa: T201
    print("progress", file=sys.stderr)  # noqa: T201
    warnings.warn("watch out", stacklevel=1)
    return task.inputs + 0.05


def test_a_library_that_changes_everything_around_it_changes_nothing(odd, capfd):
    odd("Rough", rough)
    classifier, batch = nets.conv(), nets.random_batch()
    attack, inputs, labels = asking.built("odd:Rough"), batch.inputs.clone(), batch.labels.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tracer = sys.gettrace()
    sys.settrace(trace := lambda *_: None)
    try:
        with classifier.evaluating():
            snapshot = classifier.snapshot
            threat = nets.threat("0.1")
            asking.asked(attack, classifier, batch, threat)
            assert sys.gettrace() is trace
            assert snapshot.difference() is None
            assert not any(module.training for module in classifier.module.modules())
    finally:
        sys.settrace(tracer)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.labels, labels)
    assert capfd.readouterr() == ("", "")


def test_everything_is_put_back_after_an_exception_too(odd, capfd):
    def fails(task: Task) -> Tensor:
        rough(task)
        raise RuntimeError("no luck")

    odd("Fails", fails)
    attack, classifier, batch = asking.built("odd:Fails"), nets.mlp(), nets.random_batch()
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no luck"):
        asking.asked(attack, classifier, batch)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert capfd.readouterr() == ("", "")


def drawn(task: Task) -> Tensor:
    own = float(np.random.rand()) + random.random()  # noqa: NPY002, S311
    noise = torch.rand(task.inputs.shape) + own
    return task.inputs + noise / 100


def test_what_a_library_draws_follows_the_streams(odd):
    odd("Drawn", drawn)
    attack, batch = asking.built("odd:Drawn"), nets.random_batch()
    one = asking.asked(attack, nets.mlp(), batch)
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002, S311
    assert torch.equal(one, asking.asked(attack, nets.mlp(), batch))
    other = nets.Batch(batch.ids + 1, batch.inputs, batch.labels)
    assert not torch.equal(one, asking.asked(attack, nets.mlp(), other))


class RootAtZero(torch.nn.Module):
    """Its gradient is NaN wherever the first pixel is 0."""

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return torch.stack([(flat[:, 0] * 0).sqrt() + flat[:, 1], flat[:, 2]], dim=1)


def by_sign(task: Task, loss) -> Tensor:
    leaf = task.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(task.model(leaf)), leaf)
    return (task.inputs + task.epsilon * gradient.sign()).clamp(0, 1)


@pytest.mark.parametrize("unit", [True, False])
def test_a_gradient_of_the_model_that_is_no_number_is_an_error(odd, unit):
    """A library takes its sign, 0, and returns the clean input: that would look like robustness."""
    classifier = Classifier(RootAtZero(), classes=2, input_shape=nets.SHAPE)
    odd("Sign", lambda task: by_sign(task, lambda logits: logits[:, 0].sum()), unit=unit)
    with pytest.raises(OutputError, match="input gradient is NaN or infinite"):
        asking.asked(asking.built("odd:Sign"), classifier, nets.random_batch(3))


def test_a_loss_of_the_library_that_is_no_number_is_its_own_affair(odd):
    odd("NaN", lambda task: by_sign(task, lambda logits: (logits.sum() * 0).sqrt()))
    batch = nets.random_batch(3)
    assert torch.equal(asking.asked(asking.built("odd:NaN"), nets.mlp(), batch), batch.inputs)


def test_at_epsilon_zero_the_library_is_not_asked(odd):
    batch = nets.random_batch()
    threat = nets.threat(0)
    candidates = asking.asked(asking.built("odd:Up"), nets.mlp(), batch, threat)
    assert torch.equal(candidates, batch.inputs)
    assert candidates.data_ptr() != batch.inputs.data_ptr()
    assert not TASKS


def beyond(task: Task, factor: float) -> Tensor:
    return (task.inputs + factor * task.epsilon).clamp(task.bounds.low, task.bounds.high)


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        (lambda task: task.inputs, Verdict.VALID),
        (lambda task: torch.zeros_like(task.inputs), Verdict.OUT_OF_BUDGET),
        (lambda task: torch.full_like(task.inputs, torch.nan), Verdict.NOT_FINITE),
        (lambda task: beyond(task, 2), Verdict.OUT_OF_BUDGET),
        (lambda task: task.inputs - task.epsilon / 2, Verdict.OUT_OF_BOUNDS),
    ],
    ids=["clean", "zeros", "nan", "too far", "outside"],
)
@pytest.mark.parametrize("unit", [True, False])
def test_what_a_library_returns_where_it_fails_never_counts(odd, returned, verdict, unit):
    odd("Fails", returned, unit=unit)
    for bounds in (Bounds(0.0, 1.0), WIDE):
        classifier = nets.mlp(bounds=bounds)
        batch = nets.labelled(classifier, nets.random_batch(bounds=bounds))
        batch.inputs[:, 0, 0, 0] = bounds.low
        batch = nets.labelled(classifier, batch)
        found = asking.judged(asking.built("odd:Fails"), classifier, batch, epsilon="0.001")
        assert set(found.verdict.tolist()) == {int(verdict)}
        assert not bool(found.any_misled.any())


def test_what_a_search_found_too_far_away_is_the_input_at_this_epsilon(odd):
    def some(task: Task) -> Tensor:
        assert task.epsilon == torch.inf
        found = task.inputs + 0.01
        found[::2] += 0.5
        return found

    odd("Search", some, minimal=True)
    batch = nets.random_batch()
    candidates = asking.asked(asking.built("odd:Search"), nets.mlp(), batch, nets.threat("0.1"))
    assert torch.equal(candidates[::2], batch.inputs[::2])
    torch.testing.assert_close(candidates[1::2], batch.inputs[1::2] + 0.01)


@pytest.mark.parametrize(
    ("returned", "came"),
    [(lambda task: None, "got NoneType"), (lambda task: task.inputs[:2], r"got \(2, 1, 6, 6\)")],
)
def test_what_is_no_batch_of_candidates_is_an_error(odd, returned, came):
    odd("Wrong", returned)
    with pytest.raises(AttackError, match=rf"Wrong of odd-lib 1.2 must return .*{came}"):
        asking.asked(asking.built("odd:Wrong"), nets.mlp(), nets.random_batch(5))


def test_every_reserved_parameter_has_a_reason():
    assert all(reason and reason[0].islower() for reason in RESERVED.values())


def test_a_spec_without_a_place_is_built_too(odd):
    assert build_attack(AttackSpec(name="odd:Up", epsilon=1)).norms == (Norm.LINF, Norm.L2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SearchMethod.UNKNOWN),
        ({"minimal": True}, SearchMethod.MINIMAL_NORM),
        ({"search_method": SearchMethod.ITERATIVE}, SearchMethod.ITERATIVE),
    ],
)
def test_how_an_attack_searches_is_what_its_adapter_says(odd, changes, expected):
    odd("Down", upwards, **changes)
    assert asking.built("odd:Down").search_method is expected


def relative(model, max_iter: int = 8, rel_stepsize=0.25, abs_stepsize=None):
    """The names of other libraries."""


@pytest.mark.parametrize(
    ("changes", "parameters", "expected"),
    [
        ({}, {"steps": 10, "alpha": 0.02}, 2.0),
        ({"unit": True}, {"steps": 10, "alpha": 0.02}, 10.0),  # shares of a box of width 5
        ({"signature": inspect.signature(relative)}, {}, 2.0),
        ({"signature": inspect.signature(relative)}, {"abs_stepsize": 0.05}, 4.0),
        ({"signature": inspect.signature(lambda model, steps=3: None)}, {}, float("inf")),
    ],
)
def test_the_path_of_an_attack_is_in_units_of_epsilon(odd, changes, parameters, expected):
    odd("Down", upwards, **changes)
    threat = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), WIDE)
    attack = asking.built("odd:Down", **parameters)
    assert attack.path_length(threat, bounds=WIDE) == pytest.approx(expected)
