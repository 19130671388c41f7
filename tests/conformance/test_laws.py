"""The laws see what they are for: each is broken on purpose, and only what it is about is told."""

import random
import re
import sys
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, DirectionAttack
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.pgd import PGD
from gibbon.conformance import LawStatus, check_attack, subjects, verdict_table
from gibbon.conformance.laws import LAWS, candidates_of, law, threat_of
from gibbon.core.errors import RequestError, SpecError
from gibbon.core.threat import Norm
from gibbon.verify.judge import judge
from gibbon.verify.proposal import TriesProposal

checked = dataclass(frozen=True, kw_only=True, config=STRICT)


class Breaks(Attack):
    """FGSM, until a subclass changes something."""

    norms = (Norm.LINF,)

    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield from self.change(classifier, inputs, labels, threat, streams)

    def change(self, classifier, inputs, labels, threat, streams):
        yield from good(classifier, inputs, labels, threat, streams)


def good(classifier, inputs, labels, threat, streams):
    return FGSM().propose(classifier, inputs, labels=labels, threat=threat, streams=streams)


@checked
class Good(Breaks):
    pass


@checked
class TooFar(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        for found in good(classifier, inputs, labels, threat, streams):
            yield (inputs + 1.1 * (found - inputs)).clamp(0, 1)


@checked
class Outside(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs - threat.radius * 1e-6 - threat.radius * 0.9


@checked
class NaNs(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs * float("nan") if threat.radius else inputs.clone()


@checked
class WorksInPlace(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        found = list(good(classifier, inputs, labels, threat, streams))
        inputs += 0
        inputs[0, 0, 0, 0] = 0.5
        yield from found


@checked
class ReturnsInputs(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs


@checked
class AsksGradients(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        inputs.requires_grad_()
        yield inputs.detach().clone()


@checked
class Relabels(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield from list(good(classifier, inputs, labels, threat, streams))
        labels.zero_()


@checked
class Trains(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield from list(good(classifier, inputs, labels, threat, streams))
        classifier.module.train()


@checked
class LeavesGradients(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield from list(good(classifier, inputs, labels, threat, streams))
        for parameter in classifier.module.parameters():
            parameter.grad = torch.zeros_like(parameter)


@checked
class Reseeds(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        torch.manual_seed(0)
        yield from good(classifier, inputs, labels, threat, streams)


@checked
class DrawsFromNumpyAndPython(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        np.random.rand()  # noqa: NPY002
        random.random()  # noqa: S311
        yield from good(classifier, inputs, labels, threat, streams)


@checked
class SwitchesGradientsOff(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield from list(good(classifier, inputs, labels, threat, streams))
        torch.set_grad_enabled(False)


@checked
class NeedsGradientsOutside(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs + threat.radius * (0.5 if torch.is_grad_enabled() else 0.1)


@checked
class RaisesWithoutGradients(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        if not torch.is_grad_enabled():
            raise RuntimeError("no grad")
        yield from good(classifier, inputs, labels, threat, streams)


@checked
class Follows(Breaks):
    """Draws from torch's own generator."""

    def change(self, classifier, inputs, labels, threat, streams):
        yield (inputs + threat.radius * (torch.rand(inputs.shape) - 0.5)).clamp(0, 1)


@checked
class ByBatch(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        for found in good(classifier, inputs, labels, threat, streams):
            yield inputs + (found - inputs) * (1 - 1 / (len(inputs) + 1))


@checked
class NaNByBatch(Breaks):
    """NaN compares with nothing, and must not pass for no difference."""

    def change(self, classifier, inputs, labels, threat, streams):
        for found in good(classifier, inputs, labels, threat, streams):
            yield found * float("nan") if len(inputs) == 1 else found


@checked
class MovesAtZero(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs + (threat.radius or 1e-7)


@checked
class RoundsAtZero(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        yield inputs * 3 / 3


@checked
class LogitsOnly(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        if classifier.outputs.name != "logits":
            yield inputs.clone()
        else:
            yield from good(classifier, inputs, labels, threat, streams)


@checked
class WorseWithMore(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        for found in good(classifier, inputs, labels, threat, streams):
            yield found if threat.radius < 0.2 else inputs.clone()


@checked
class HalfHearted(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        for found in good(classifier, inputs, labels, threat, streams):
            yield inputs + 0.4 * (found - inputs)


@checked
class GoesRound(Breaks):
    """Calls ``forward`` by itself, past the hooks that count."""

    def change(self, classifier, inputs, labels, threat, streams):
        classifier.module.forward(inputs)
        yield from good(classifier, inputs, labels, threat, streams)


@checked
class Raises(Breaks):
    def change(self, classifier, inputs, labels, threat, streams):
        raise RuntimeError("no luck")
        yield inputs


@pytest.fixture(autouse=True)
def _gradients_on():
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (TooFar, "budget", "of 40 candidates at ε 0.1 out of budget"),
        (Outside, "budget", "of 40 candidates at ε 0.1 out of bounds"),
        (NaNs, "budget", "40 of 40 candidates at ε 0.1 not finite"),
        (WorksInPlace, "inputs", "the inputs were changed in place"),
        (ReturnsInputs, "inputs", "a candidate lies in the memory of the inputs"),
        (AsksGradients, "inputs", "the inputs were left with requires_grad set"),
        (Relabels, "inputs", "the labels were changed in place"),
        (Trains, "model", "the attack left the model in another mode"),
        (LeavesGradients, "model", "gradients were left on the model's parameters"),
        (Reseeds, "generators", "the global generator of torch moved"),
        (DrawsFromNumpyAndPython, "generators", "the global generator of numpy and Python moved"),
        (SwitchesGradientsOff, "grad-mode", "gradients were left switched off"),
        (
            RaisesWithoutGradients,
            "grad-mode",
            "it raised RuntimeError under torch.no_grad: no grad",
        ),
        (NeedsGradientsOutside, "grad-mode", "candidates differ if gradients are switched off"),
        (Follows, "seed", "candidates differ from run to run"),
        (ByBatch, "batch", "candidates differ by up to 0.0"),
        (NaNByBatch, "batch", "candidates differ by up to nan"),
        (MovesAtZero, "zero", "of 1440 coordinates moved"),
        (RoundsAtZero, "zero", "of 1440 coordinates moved"),
        (LogitsOnly, "outputs", "on a model of probabilities no candidate moves by more than 0"),
        (WorseWithMore, "larger-budget", "a larger budget gives fewer misclassified examples"),
        (
            HalfHearted,
            "optimum",
            "24 of 24 examples are not misclassified at 2 times their smallest",
        ),
        (GoesRound, "passes", "the model made 80 forward and 40 backward passes, 40 and 40 were"),
    ],
)
def test_a_breach_is_seen_by_its_law_and_told(kind, name, told):
    assert told in law(name).check(kind(), Norm.LINF).broken
    assert law(name).check(Good(), Norm.LINF).broken == ""
    torch.set_grad_enabled(True)


@checked
class ColourOnly(Breaks):
    channels: ClassVar[int | None] = 3

    def change(self, classifier, inputs, labels, threat, streams):
        assert classifier.input_shape[0] == inputs.shape[1] == 3
        yield from good(classifier, inputs, labels, threat, streams)


def test_an_attack_on_colours_is_tried_on_colours():
    verdict = check_attack(ColourOnly)
    assert [each.status for each in verdict.results] == [LawStatus.KEPT] * len(LAWS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", list(Norm))
def test_no_candidate_misleads_within_the_closed_form_distance(norm, channels):
    """The optimum is one: even the exact worst case misleads nobody within it, and all beyond."""
    case = subjects.boundary_case(shape=(channels, 6, 6))
    weights = case.classifier.module[1].weight.detach()
    labels = case.batch.labels
    with case.classifier.evaluating():
        outputs = case.classifier.predict(case.batch.inputs)
    rivals = outputs.scatter(1, labels.unsqueeze(1), -torch.inf).argmax(1)
    difference = weights[rivals] - weights[labels]
    for factor, expected in ((0.999, 0), (1.001, len(labels))):
        step = steepest(difference, norm) * case.distance[norm] * factor
        candidates = case.batch.inputs + step.view_as(case.batch.inputs)
        threat = threat_of(factor * case.distance[norm], norm=norm)
        with case.classifier.evaluating():
            found = judge(
                case.classifier, case.batch, proposed=TriesProposal([candidates]), threat=threat
            )
        assert found.verdict.unique().tolist() == [0]
        assert int(found.any_misled.sum()) == expected


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    if norm is Norm.LINF:
        return gradient.sign()
    if norm is Norm.L2:
        return gradient / gradient.norm(dim=1, keepdim=True)
    first = gradient.abs().argmax(1, keepdim=True)
    return torch.zeros_like(gradient).scatter_(1, first, gradient.gather(1, first).sign())


@checked
class Candid(ByBatch):
    """Says why it departs from a law that it breaks, and from one that nobody may break."""

    departures: ClassVar = {"batch": "it was made so", "budget": "it likes it outside"}


@checked
class Excused(TooFar):
    departures: ClassVar = {"budget": "it likes it outside"}


def test_a_departure_that_is_written_down_is_no_breach():
    verdict = check_attack(Candid, laws=[law("batch"), law("budget")])
    batch, budget = verdict.results
    assert batch.status is LawStatus.DEPARTS
    assert batch.sentence.endswith(": it was made so.")
    assert budget.status is LawStatus.KEPT
    assert verdict.passed
    assert verdict.departures == (batch,)


@checked
class Misspelt(ByBatch):
    departures: ClassVar = {"bacth": "it was made so"}


def test_a_departure_from_no_law_is_refused():
    with pytest.raises(SpecError, match=r"an unknown law: 'bacth'.*'batch'"):
        check_attack(Misspelt, laws=[law("batch")])


def test_from_some_laws_no_attack_may_depart():
    (found,) = check_attack(Excused, laws=[law("budget")]).results
    assert found.status is LawStatus.BROKEN
    assert found.sentence.endswith("no attack may depart from this law, though this one says so.")


def test_what_an_attack_raises_is_a_law_broken_and_the_others_go_on():
    verdict = check_attack(Raises, laws=[law("seed"), law("batch")])
    assert len(verdict.broken) == 2
    for each in verdict.broken:
        assert re.fullmatch(
            r"it raised RuntimeError: no luck \(test_laws.py, line \d+\)\.",
            each.sentence,
        )


RAISES = """
from dataclasses import dataclass

from gibbon.attacks.base import Attack


@dataclass(frozen=True)
class Late(Attack):
    def propose(self, classifier, inputs, *, labels, threat, streams):
        from {package} import steps

        raise steps.OutOfLuck("no luck")
"""


@pytest.mark.parametrize("reference", ["late_package.attacks:Late", "late_package/attacks.py:Late"])
def test_what_a_plug_in_of_the_working_folder_raises_is_told(tmp_path, monkeypatch, reference):
    """It is imported for the check alone, and may import its own when it is asked."""
    folder = tmp_path / "late_package"
    folder.mkdir()
    in_module = reference.startswith("late_package.")
    (folder / "__init__.py").touch()
    (folder / "steps.py").write_text("class OutOfLuck(Exception): ...\n")
    text = RAISES.format(package="late_package") if in_module else RAISES.format(package="package")
    (folder / "attacks.py").write_text(text.replace("from package import", "import"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [each for each in sys.path if each])
    verdict = check_attack(reference, laws=[law("budget")])
    assert verdict.broken[0].sentence == "it raised OutOfLuck: no luck (attacks.py, line 12)."
    assert "late_package" not in sys.modules


@pytest.mark.parametrize("module", ["__console__", "__main__"])
def test_what_a_class_without_source_raises_is_told_too(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    names: dict = {"__name__": module}
    exec(RAISES.format(package="nowhere_at_all"), names)  # noqa: S102
    verdict = check_attack(names["Late"], laws=[law("budget")])
    assert "it raised ModuleNotFoundError" in verdict.broken[0].sentence


def test_all_laws_are_tried_in_every_norm_and_told_one_by_one():
    told = []
    verdict = check_attack(PGD(steps=2), laws=LAWS[:2], progress=lambda *words: told.append(words))
    assert told == [
        ("budget, L∞", 0, 4),
        ("inputs, L∞", 1, 4),
        ("budget, L2", 2, 4),
        ("inputs, L2", 3, 4),
    ]
    assert [each.norm for each in verdict.results] == [Norm.LINF] * 2 + [Norm.L2] * 2
    assert "steps = 2" in verdict.parameters
    only = check_attack("pgd", parameters={"steps": 2}, norms=[Norm.L2], laws=LAWS[:1])
    assert [each.norm for each in only.results] == [Norm.L2]


def test_an_attack_that_is_another_in_one_norm_is_tried_as_that():
    verdict = check_attack("pgd", parameters={"steps": 2}, norms=[Norm.L1], laws=[law("seed")])
    assert "sparsity" in verdict.parameters
    assert verdict.passed


def test_what_the_laws_choose_themselves_is_refused():
    with pytest.raises(SpecError, match="epsilon is no parameter"):
        check_attack("pgd", parameters={"epsilon": 0.1})


def test_a_control_departs_as_we_have_written_down():
    verdict = check_attack("noise-sign")
    assert verdict.passed
    assert {each.law.name for each in verdict.departures} <= {"optimum", "larger-budget"}
    assert verdict.departures


MINE = """
from pydantic.dataclasses import dataclass
from gibbon.attacks.base import STRICT, DirectionAttack

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(DirectionAttack):
    strength: float = 1.0

    def direction(self, classifier, inputs, *, labels, streams):
        return classifier.loss_gradient(inputs, labels).sign_() * self.strength
"""


def test_an_attack_is_found_in_a_file_or_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_attacks.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    for reference in (f"{tmp_path / 'my_attacks.py'}:Mine", "my_attacks:Mine"):
        verdict = check_attack(reference, parameters={"strength": 0.9}, laws=[law("budget")])
        assert verdict.attack == reference
        assert verdict.parameters == "strength = 0.9"
        assert verdict.results[0].figure == "at most 0.9 ε"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("fgms", "unknown attack 'fgms'; did you mean 'fgsm'"),
        ("nowhere_at_all:Mine", "module 'nowhere_at_all' can't be imported"),
        ("fooblox:LinfPGD", "unknown attack source 'fooblox'; did you mean 'foolbox'"),
        ("gibbon.attacks.fgsm:FGMS", "has no 'FGMS'; did you mean 'FGSM'"),
        ("gibbon.core.threat:Bounds", "must be a dataclass derived from"),
    ],
)
def test_what_is_no_attack_is_refused(reference, told):
    with pytest.raises(RequestError, match=told):
        check_attack(reference)


def test_wrong_parameters_and_norms_are_refused():
    with pytest.raises(SpecError, match="no parameter 'stpes'; did you mean 'steps'"):
        check_attack("pgd", parameters={"stpes": 2})
    with pytest.raises(SpecError, match="attack 'fgsm' works in linf, not in l2"):
        check_attack("fgsm", norms=[Norm.L2])
    with pytest.raises(SpecError, match="attack 'PGD' is built already"):
        check_attack(PGD(), parameters={"steps": 2})


def test_the_table_has_a_row_a_law_and_more_where_norms_differ():
    verdict = check_attack(PGD(steps=2), laws=[law("budget"), law("passes")])
    table = verdict_table(verdict)
    rows = [[str(cell) for cell in row] for row in table.rows]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("budget", "L∞, L2", "kept"),
        ("passes", "L∞, L2", "kept"),
    ]
    assert rows[1][4] == "2 forward, 2 backward an example"
    assert table.notes[-1].startswith("PGD: 4 of 4 laws and norms kept, none broken (")
    broken = verdict_table(check_attack(HalfHearted, laws=[law("optimum")]))
    assert [str(cell) for cell in broken.rows[0]][3] == "BROKEN"
    assert broken.notes[0].startswith(
        "BROKEN, optimum in L∞: 24 of 24 examples are not misclassified"
    )
    assert broken.notes[0].endswith(law("optimum").advice)
    assert "0 of 1 laws and norms kept, 1 broken" in broken.notes[-1]


def test_laws_have_names_of_their_own_and_say_what_they_ask():
    names = [each.name for each in LAWS]
    assert len(set(names)) == len(names)
    for each in LAWS:
        assert law(each.name) is each
        assert each.says[0].islower()
        assert not each.says.endswith(".")
        assert each.advice.endswith(".")
        assert each.check.__doc__


def test_a_direction_attack_is_tried_as_the_benchmark_runs_it():
    @checked
    class Longer(DirectionAttack):
        def direction(self, classifier, inputs, *, labels, streams):
            return torch.full_like(inputs, 1.5)

    assert "out of budget" in law("budget").check(Longer(), Norm.LINF).broken
    batch = subjects.random_batch(3)
    (candidates,) = candidates_of(
        Longer(), subjects.linear(), batch, threat=threat_of("0.1", norm=Norm.LINF)
    )
    torch.testing.assert_close(candidates, (batch.inputs + 0.15).clamp(0, 1))
