"""Errors of the Python call that are the caller's name the argument, and what is right there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gibbon
from gibbon import Attack
from gibbon.attacks.pgd import PGD
from gibbon.core.errors import DatasetError, ModelError, RequestError, SpecError

LABELS = torch.arange(12) % 3
INPUTS = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def evaluate(model: Any = None, data: Any = None, **given: Any) -> gibbon.Results:
    given = {"attack": "fgsm", "epsilon": 0.1, "examination": False, **given}
    return gibbon.evaluate(model or net(), data or (INPUTS, LABELS), **given)


@pytest.mark.parametrize("method", ["note", "checking", "start", "advance"])
def test_progress_that_raises_is_named_as_the_callers(method: str) -> None:
    class Bar:
        def __getattr__(self, name: str) -> Any:
            def report(*given: Any, **named: Any) -> None:
                if name == method:
                    raise KeyError("no such bar")

            return report

    if method == "note":  # the one sentence of a run whose outputs are probabilities
        model: nn.Module = nn.Sequential(net(), nn.Softmax(1))
    else:
        model = net()
    with pytest.raises(RequestError, match=rf"progress: the caller's Bar .* {method}\(...\)"):
        evaluate(model, progress=Bar())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gibbon.ModelSpec(name="a", modell="b"), "ModelSpec: modell: .* 'model'"),
        (lambda: gibbon.ModelSpec(name="a b", model="b"), "ModelSpec: name: must be made of"),
        (lambda: gibbon.DatasetSpec(name="a", bounds=3), "DatasetSpec: bounds: must be a list"),
        (lambda: gibbon.AttackSpec(name="pgd", epsilon=-3), r"AttackSpec: epsilon\[0\]: .*-3$"),
        (
            lambda: gibbon.Suite(name="x", dataset="mnist", models=[{"name": "a", "modl": 3}]),
            r"Suite: experiments\[0\]\.models\[0\]\.modl: unknown key",
        ),
    ],
)
def test_spec_made_in_python_says_which_key_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        make()
    assert "pydantic" not in str(caught.value)


def test_attack_spec_is_an_attack_of_a_call() -> None:
    spec = gibbon.AttackSpec(name="pgd", epsilon=0.2, steps=3, label="short")
    alone, listed = evaluate(attack=spec), evaluate(attack=[spec, "fgsm"])
    for results in (alone, listed):
        row = results.to_frame().query("attack == 'short'").iloc[0]
        assert (str(row.epsilon), row.examples) == ("0.2", len(LABELS))
    assert set(listed.to_frame().attack) - {"none"} == {"short", "fgsm"}
    with pytest.raises(SpecError, match="stepz"):
        evaluate(attack=gibbon.AttackSpec(name="pgd", epsilon=0.2, stepz=3))


@pytest.mark.parametrize(
    ("attack", "advice"),
    [
        (PGD, r"an attack is an instance: PGD\(\)"),
        (lambda inputs: inputs, "subclass of gibbon.Attack"),
        (3, "got 3"),
        (["fgsm", None], "got None"),
    ],
)
def test_attack_of_another_type_is_refused(attack: object, advice: str) -> None:
    with pytest.raises(SpecError, match=rf"attack: must be an attack's name.*{advice}"):
        evaluate(attack=attack)


def test_attacks_may_come_from_any_iterable() -> None:
    attacks: list[Attack | str] = ["fgsm", PGD(steps=1)]
    assert len(evaluate(attack=iter(attacks)).evaluations) == 3


def test_state_dict_in_place_of_a_model() -> None:
    with pytest.raises(ModelError, match=r"got tensors by name \(1.weight, .*load_state_dict"):
        evaluate(net().state_dict())


@pytest.mark.parametrize(
    ("key", "party"), [("class_order", "DatasetSpec"), ("weights_key", "ModelSpec")]
)
def test_key_of_another_party_is_named(key: str, party: str) -> None:
    with pytest.raises(SpecError, match=rf"has no parameter '{key}'.*{party}\(..., {key}=...\)"):
        evaluate(**{key: "text"})


def test_bounds_as_text() -> None:
    table = torch.linspace(-2, 2, 12 * 16).view(12, 16)
    found = evaluate(data=(table, LABELS), bounds="-2,2").evaluations[-1]
    assert (found.status, found.examples) == ("done", 12)
    for wrong in ("-2,x", "pixels", "1"):
        with pytest.raises(SpecError, match="bounds: must be the lowest and the highest value"):
            evaluate(data=(table, LABELS), bounds=wrong)


def test_integers_with_declared_bounds() -> None:
    waves = torch.zeros(12, 1, 16, dtype=torch.int16)
    with pytest.raises(DatasetError, match=r"\[-32768, 32767\], as declared, got int16.*float\(\)"):
        evaluate(data=(waves, LABELS), bounds=(-32768, 32767))


@pytest.mark.parametrize(
    ("layer", "shape", "cure"),
    [
        (nn.Conv1d(1, 2, 3), (16,), r"\(channels, length\).*inputs\[:, None\]$"),
        (nn.Conv1d(2, 2, 3), (16,), r"inputs\[:, None\].expand\(-1, 2, -1\)$"),
        (nn.Conv1d(2, 2, 3), (16, 2), r"permute\(0, 2, 1\)$"),
        (nn.Conv3d(1, 2, 3), (4, 5, 6), r"\(channels, depth, height, width\).*inputs\[:, None\]$"),
        (nn.Conv3d(3, 2, 3), (4, 5, 6, 3), r"permute\(0, 4, 1, 2, 3\)$"),
    ],
)
def test_axes_of_waveforms_and_videos(layer: nn.Module, shape: tuple[int, ...], cure: str) -> None:
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(1, 3))
    with pytest.raises(DatasetError, match=cure):
        evaluate(model, (torch.zeros(12, *shape), LABELS))


class Answering(nn.Module):
    """A network whose outputs a function changes."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.change(self.net(inputs))
        return answer


def test_complex_outputs_get_advice_that_fits() -> None:
    with pytest.raises(ModelError, match=r"got torch.complex64: return real numbers"):
        evaluate(Answering(lambda outputs: outputs + 0j))
    with pytest.raises(ModelError, match=r"got torch.int64: return the logits"):
        evaluate(Answering(lambda outputs: outputs.long()))


class Tokens(nn.Module):
    """A network of token ids, which it makes of numbers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(self.embedding(ids.long()).mean(1))
        return outputs


def test_missing_gradients_get_advice_that_fits() -> None:
    with pytest.raises(ModelError, match=r"no gradient.*leave that out of forward"):
        evaluate(Answering(torch.Tensor.detach))
    with pytest.raises(ModelError, match=r"no gradient.*attack the embeddings"):
        evaluate(Tokens(), (torch.zeros(12, 5), LABELS), bounds=(0, 8))
