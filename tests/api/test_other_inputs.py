"""Inputs that are no pictures: tables, waveforms, embeddings, and the page about them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from gibbon import evaluate
from gibbon.cli.app import main as gibbon
from gibbon.core.errors import DatasetError, ModelError, RequestError, SpecError
from gibbon.records.run import RunRecord
from gibbon.report.text.markdown import tables_markdown
from gibbon.specs.suite import DatasetSpec

PAGE = Path(__file__).parents[2] / "docs" / "other-inputs.md"
QUICK: dict[str, Any] = {"examination": False, "certify": "none"}


def table(count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    rows = torch.randn(count, 8, generator=generator)
    rows[torch.arange(count), labels] += 2
    return rows, labels


def linear() -> nn.Module:
    model = nn.Linear(8, 3)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 8))
        model.bias.zero_()
    return model


def by_hand(
    model: nn.Module, rows: Tensor, labels: Tensor, *, epsilon: float, bound: float
) -> float:
    leaf = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(leaf), labels), leaf)
    moved = (rows + epsilon * gradient.sign()).clamp(-bound, bound)
    return (model(moved).argmax(1) != labels).double().mean().item()


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(*table(), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        table(),
        tuple(each.numpy() for each in table()),
        TensorDataset(*table()),
        DataLoader(TensorDataset(*table()), batch_size=7),
        list(zip(*table(), strict=True)),
        Stream(),
    ],
    ids=["tensors", "arrays", "dataset", "loader", "items", "stream"],
)
def test_a_table_is_attacked_as_by_hand_in_whatever_form_it_comes(data: Any) -> None:
    model = linear()
    results = evaluate(model, data, attack="fgsm", epsilon=0.5, bounds=(-8, 8), **QUICK)
    rows, labels = table()
    assert results.adversarial_error == by_hand(model, rows, labels, epsilon=0.5, bound=8)
    assert results.adversarial_error > results.clean_error
    (card,) = results.record.datasets
    assert card.bounds == (-8.0, 8.0)
    assert "-8, 8" in tables_markdown(results.record)


def test_candidates_stay_in_the_bounds_that_are_declared() -> None:
    rows, labels = table()
    model, bound = linear(), rows.abs().max().item()
    results = evaluate(
        model, (rows, labels), attack="fgsm", epsilon=3, bounds=(-bound, bound), **QUICK
    )
    assert results.adversarial_error == by_hand(model, rows, labels, epsilon=3, bound=bound)
    assert results.to_frame()["invalid_candidates"].iloc[-1] == 0


def test_raw_units_with_a_mean_and_std_a_column_are_those_of_the_table() -> None:
    rows, labels = table()
    model = linear()
    scaled = evaluate(model, (rows, labels), attack="fgsm", epsilon=0.5, bounds=(-8, 8), **QUICK)
    raw = evaluate(
        model,
        (rows * 40 + 200, labels),
        attack="fgsm",
        epsilon=20,
        bounds=(-120, 520),
        mean=[200.0] * 8,
        std=[40.0] * 8,
        **QUICK,
    )
    assert raw.clean_error == scaled.clean_error
    assert raw.adversarial_error == scaled.adversarial_error


def test_bytes_with_other_bounds_are_numbers_like_others() -> None:
    rows, labels = table()
    whole = (rows * 20 + 120).round().clamp(0, 255)
    for data in ((whole, labels), (whole.to(torch.uint8), labels)):
        for form in (data, TensorDataset(*data), list(zip(*data, strict=True))):
            results = evaluate(linear(), form, attack="fgsm", epsilon=5, bounds=(0, 255), **QUICK)
            assert (
                results.clean_error == (linear()(whole).argmax(1) != labels).double().mean().item()
            )


@pytest.mark.parametrize(
    "attack", ["pgd", "apgd-ce", "square", "deepfool", "noise-sign", "mi-fgsm"]
)
@pytest.mark.parametrize("shape", [(8,), (1, 40), (2, 40), (5, 6)])
def test_attacks_take_any_shape(attack: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(16, *shape, generator=generator) * 4 - 2
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 4))
    labels = model(inputs).argmax(1)
    few = {"square": {"queries": 20}, "apgd-ce": {"steps": 5}, "pgd": {"steps": 5}}.get(attack, {})
    results = evaluate(
        model, (inputs, labels), attack=attack, epsilon=0.5, bounds=(-2, 2), **QUICK, **few
    )
    assert results.clean_error == 0
    assert results.adversarial_error >= 0
    assert results.to_frame()["invalid_candidates"].iloc[-1] == 0


@pytest.mark.parametrize(
    ("inputs", "said", "unsaid"),
    [
        (table()[0], "inputs of shape (8,) are no pictures: declare the bounds", "pixels"),
        (table()[0], "scale each to one range first", "Normalize"),
        (torch.linspace(-1, 1, 600).view(60, 1, 10), "bounds=(-1, 1) (--bounds=-1,1)", "columns"),
        (torch.randn(60, 4, 6), "are no pictures: declare the bounds", "pixels"),
        (torch.randn(60, 3, 6, 6), "leave Normalize out of the transform", "columns"),
        (torch.rand(60, 3, 6, 6) * 1.05 - 0.02, "after it, inputs.clamp(0, 1)", "pixels"),
        (torch.rand(60, 3, 6, 6) * 255, "divide them by 255", "bounds"),
        (torch.randint(0, 50, (60, 12)), "discrete inputs, such as token ids, are not", "pixels"),
        (torch.ones(60, 1, 6, 6) * (1 + 2**-23), "found [1, 1.0000001]: they leave it", "pixels"),
        (torch.full((60, 8), torch.nan), "found NaN", "bounds="),
    ],
)  # fmt: skip
def test_advice_fits_what_the_inputs_are(inputs: Tensor, said: str, unsaid: str) -> None:
    with pytest.raises(DatasetError) as raised:
        evaluate(linear(), (inputs, table()[1]), attack="fgsm", epsilon=0.1)
    assert said in str(raised.value)
    assert unsaid not in str(raised.value)


def test_inputs_beyond_declared_bounds_are_refused_with_wider_ones() -> None:
    with pytest.raises(
        DatasetError, match=r"must be in \[-1, 1\], found .* or declare bounds that hold"
    ):
        evaluate(linear(), table(), attack="fgsm", epsilon=0.1, bounds=(-1, 1))


@pytest.mark.parametrize("bounds", [(0,), (1, 2, 3), [[0, 1]] * 8, 3, ("a", "b")])
def test_bounds_are_two_numbers(bounds: Any) -> None:
    with pytest.raises(SpecError, match="scale each to one range first"):
        evaluate(linear(), table(), attack="fgsm", epsilon=0.1, bounds=bounds)


@pytest.mark.parametrize("bounds", [(1, -1), (0, 0), (0, float("inf")), (float("nan"), 1)])
def test_bounds_are_finite_and_rise(bounds: Any) -> None:
    with pytest.raises(SpecError, match="bounds"):
        evaluate(linear(), table(), attack="fgsm", epsilon=0.1, bounds=bounds)


def test_the_earlier_meaning_of_bounds_is_still_read() -> None:
    pictures = (torch.rand(20, 1, 3, 3), torch.arange(20) % 3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    results = evaluate(net, pictures, attack="fgsm", epsilon=0.1, bounds="none", examination=False)
    assert results.to_frame()["certified_error"].isna().all()
    with pytest.raises(SpecError, match="both given"):
        evaluate(net, pictures, attack="fgsm", epsilon=0.1, bounds="none", certify="all")


def test_pictures_and_registered_data_have_their_own_bounds() -> None:
    with pytest.raises(RequestError, match="whose inputs have their own bounds"):
        evaluate("softmax", "mnist", attack="fgsm", epsilon=0.1, bounds=(-1, 1))


def write_files(folder: Path) -> None:
    rows, labels = table()
    np.savez(folder / "table.npz", inputs=rows.numpy(), labels=labels.numpy())
    code = """
        import torch
        from torch import nn

        def build():
            model = nn.Linear(8, 3)
            with torch.no_grad():
                model.weight.copy_(torch.eye(3, 8))
                model.bias.zero_()
            return model

        def load():
            generator = torch.Generator().manual_seed(0)
            labels = torch.arange(60) % 3
            rows = torch.randn(60, 8, generator=generator)
            rows[torch.arange(60), labels] += 2
            return rows, labels
    """
    (folder / "net.py").write_text(re.sub(r"^ {8}", "", code, flags=re.MULTILINE))


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gibbon", *words])
    with pytest.raises(SystemExit) as left:
        gibbon()
    return left.value.code


@pytest.mark.parametrize("source", ["table.npz", "net.py:load"])
def test_bounds_on_the_command_line_and_in_a_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = f"--model net.py:build --dataset {source} --attack fgsm --epsilon 0.5".split()
    options = ["--device", "cpu", "--no-examination", "--output", "out"]
    options += ["--save-suite", "suite.toml"]
    assert command(monkeypatch, "evaluate", *words, *options, "--bounds", "-8,8") == 0
    rows, labels = table()
    expected = by_hand(linear(), rows, labels, epsilon=0.5, bound=8)
    assert RunRecord.read(Path("out")).evaluations[1].adversarial_error == expected
    assert "bounds = [-8.0, 8.0]" in " ".join(Path("suite.toml").read_text().split())
    assert command(monkeypatch, "run", "suite.toml", "--output", "again", "--no-examination") == 0
    assert RunRecord.read(Path("again")).evaluations[1].adversarial_error == expected
    assert "Inputs are in" in Path("out/tables.md").read_text()


def test_the_words_of_bounds_on_the_command_line_are_certify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--model", "net.py:build", "--dataset", "table.npz"]
    words += ["--attack", "fgsm", "--epsilon", "0.5"]
    assert command(monkeypatch, *words, "--bounds=-8,8", "--bounds", "none", "--output", "out") == 0
    assert RunRecord.read(Path("out")).evaluations[1].certified_error is None
    assert command(monkeypatch, *words, "--bounds", "8") == 2
    assert "--bounds: expected the lowest and the highest value" in capsys.readouterr().err


def test_a_spec_of_arrays_takes_bounds_and_needs_no_layout(tmp_path: Path) -> None:
    waves = torch.rand(12, 2, 30) * 2 - 1
    np.savez(tmp_path / "w.npz", inputs=waves.numpy(), labels=np.arange(12.0) % 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 2))
    spec = DatasetSpec(
        name="w", source=str(tmp_path / "w.npz"), labels="labels", inputs="inputs", bounds=(-1, 1)
    )
    results = evaluate(net, spec, attack="fgsm", epsilon=0.1, **QUICK)
    assert results.adversarial_error >= results.clean_error


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102  the page's own code
        assert 0 <= names["results"].clean_error <= 1
        assert not names["results"].failures
    assert capsys.readouterr().out


@pytest.mark.parametrize("known", [{}, {"bounds": (0, 50)}])
def test_token_ids_as_numbers_get_advice(known):
    ids = torch.randint(0, 50, (12, 6)).float() / (1 if known else 50)
    network = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(24, 3))
    with pytest.raises(ModelError, match=r"attack the embeddings.*network\.embedding"):
        evaluate(network, (ids, torch.arange(12) % 3), attack="fgsm", epsilon=0.1, **known)


def test_indices_of_another_kind_get_none():
    class Gathers(nn.Module):
        def forward(self, inputs):
            return inputs[:, torch.tensor([0.5])]

    with pytest.raises(ModelError) as raised:
        evaluate(Gathers(), (torch.rand(12, 6), torch.arange(12) % 3), attack="fgsm", epsilon=0.1)
    assert "embeddings" not in str(raised.value)
