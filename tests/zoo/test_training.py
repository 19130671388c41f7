"""The loop: same seed, same weights, also after an interruption; bad input is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_trainings import (
    ADAM,
    ORIGINAL,
    SGD,
    Stop,
    blobs,
    build,
    fitted,
    ignore,
    recipe,
    stop_at,
    train,
)

from gibbon.core.errors import ModelError, RunFolderError, SpecError, WeightsError
from gibbon.core.rng import derive_key
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import draw_masks
from gibbon_zoo.training import fit
from gibbon_zoo.training_checkpoint import read_training_checkpoint

RECIPES: dict[str, dict[str, object]] = {
    "the fields of the original": ORIGINAL,
    "the original, adversarial": {**ORIGINAL, "adversarial": {"alpha": 0.5, "epsilon": "0.1"}},
    "the original, with sigmoids": {**ORIGINAL, "architecture": "maxout-sigmoid"},
    "ramps from zero": {
        "architecture": "maxout",
        "optimiser": {
            "name": "sgd",
            "learning_rate": 0.05,
            "rate_ramp": {"end": 3, "final": 0.1},
            "momentum_ramp": {"end": 3, "final": 0.9},
        },
        "dropout": {"hidden": 0.3, "hidden_scale": 1.2},
    },
    "adam, dropout and max-norm": {
        "architecture": "maxout",
        "dropout": {"inputs": 0.2, "hidden": 0.5},
        "max_norm": 1.0,
    },
    "momentum": {"architecture": "maxout", "optimiser": SGD},
    "adversarial": {
        "architecture": "maxout",
        "dropout": {"hidden": 0.3},
        "adversarial": {"alpha": 0.5, "epsilon": "0.1"},
    },
    "adversarial, masks of its own": {
        "architecture": "maxout",
        "dropout": {"inputs": 0.2, "hidden": 0.3},
        "adversarial": {"alpha": 0.5, "epsilon": "0.1", "masks": "own"},
    },
    "bfloat16": {
        "architecture": "maxout",
        "arithmetic": "bfloat16",
        "dropout": {"hidden": 0.3},
        "adversarial": {"alpha": 0.5, "epsilon": "0.1"},
    },
    "noise and L1 decay": {
        "architecture": "maxout",
        "noise": {"kind": "uniform", "epsilon": "0.1"},
        "l1_decay": {"hidden1.weight": 0.001},
    },
    "hidden layers": {
        "architecture": "maxout",
        "adversarial": {"alpha": 0.5, "epsilon": "0.1", "perturbs": "hidden"},
    },
    "rotation": {
        "architecture": "maxout",
        "dropout": {"inputs": 0.2},
        "rotation": {"alpha": 0.5, "chord": 0.2},
    },
    "worst case": {"architecture": "softmax", "worst_case": {"epsilon": "0.05"}},
    "rates by parameter": {
        "architecture": "rbf",
        "spread": 0.0,
        "optimiser": {**ADAM, "rates": {"centres": 0.001}},
    },
}


@pytest.mark.parametrize("kind", RECIPES)
def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tmp_path: Path, kind: str
) -> None:
    plan = recipe(**RECIPES[kind])
    first, second = train(plan, tmp_path / "a"), train(plan, tmp_path / "b")
    assert torch.equal(first, second)
    other = train(plan.override(seed=1), tmp_path / "c")
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", RECIPES)
def test_interrupted_and_resumed_is_the_same_bit_for_bit(tmp_path: Path, kind: str) -> None:
    plan = recipe(**RECIPES[kind])
    whole = train(plan, tmp_path / "whole")
    # A step is stored as soon as it is done; reports come every 20 steps, which is in the middle
    # of the second epoch's 13 steps, and in the last epoch's.
    for _ in range(2):
        with pytest.raises(Stop):
            train(plan, tmp_path / "parts", stop_at(20), every=0.0)
    resumed = train(plan, tmp_path / "parts")
    assert torch.equal(resumed, whole)


@pytest.mark.parametrize("architecture", ["maxout", "maxout-sigmoid"])
def test_the_original_recipe_starts_and_the_loss_falls(tmp_path: Path, architecture: str) -> None:
    plan = recipe(**{**ORIGINAL, "architecture": architecture, "epochs": 12})
    losses = [each.loss for each in fitted(plan, tmp_path).history]
    assert losses[-1] < losses[5] < losses[0]
    assert losses[-1] < 0.75 * losses[0]


def test_training_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(recipe(**RECIPES["adversarial"]), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[4]]
import test_training as t

def report(progress):
    if progress.step >= 20:
        os.kill(os.getpid(), signal.SIGKILL)

t.torch.set_num_threads(int(sys.argv[3]))
t.train(t.recipe(**t.RECIPES["adversarial"]), Path(sys.argv[2]), report, every=0.0)
"""


def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    here = Path(__file__).parent
    threads = str(torch.get_num_threads())
    arguments = [str(here), str(tmp_path / "killed"), threads, str(here.parent)]
    victim = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert victim.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["checkpoint.pt"]
    plan = recipe(**RECIPES["adversarial"])
    assert torch.equal(train(plan, tmp_path / "killed"), train(plan, tmp_path / "whole"))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    plan = recipe(**RECIPES["momentum"])
    first = train(plan, tmp_path)
    steps: list[int] = []
    again = train(plan, tmp_path, lambda progress: steps.append(progress.step))
    assert torch.equal(again, first)
    assert steps == []


def test_progress_is_reported_every_few_steps_and_after_each_epoch(tmp_path: Path) -> None:
    reports: list[TrainingProgress] = []
    train(recipe(**RECIPES["momentum"]), tmp_path, reports.append)
    assert [(r.step, r.epoch) for r in reports] == [(13, 1), (20, 1), (26, 2), (39, 3)]
    assert all(r.steps == 39 and r.epochs == 3 for r in reports)
    assert reports[-1].loss < reports[0].loss


@pytest.mark.parametrize("kind", ["shared", "own"])
def test_one_step_of_the_adversarial_objective_is_its_formula(tmp_path: Path, kind: str) -> None:
    sgd = {"name": "sgd", "learning_rate": 0.5}
    plan = recipe(
        architecture="maxout",
        epochs=1,
        batch_size=200,
        optimiser=sgd,
        dropout={"inputs": 0.2, "hidden": 0.5},
        adversarial={"alpha": 0.3, "epsilon": "1/10", "masks": kind},
    )
    trained = train(plan, tmp_path)

    net = build(plan)
    inputs, labels = blobs()
    random = torch.Generator().manual_seed(derive_key(0, "start"))
    net.start(inputs, labels, spread=0.1, generator=random)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(derive_key(0, "order", 0)))
    masks, perturbed = (
        draw_masks(
            net.layer_widths,
            200,
            input_rate=0.2,
            hidden_rate=0.5,
            generator=torch.Generator().manual_seed(derive_key(0, label, 0)),
        )
        for label in ("masks", "masks" if kind == "shared" else "perturbed")
    )
    x, y = inputs[order].requires_grad_(), labels[order]
    loss = torch.nn.functional.cross_entropy
    (gradient,) = torch.autograd.grad(loss(net(x, masks), y), x)
    twins = x.detach() + 0.1 * gradient.sign()
    objective = 0.3 * loss(net(x.detach(), masks), y) + 0.7 * loss(net(twins, perturbed), y)
    gradients = torch.autograd.grad(objective, list(net.parameters()))
    expected = [(p - 0.5 * g).flatten() for p, g in zip(net.parameters(), gradients, strict=True)]
    torch.testing.assert_close(trained, torch.cat(expected).detach())


def test_max_norm_holds_after_training(tmp_path: Path) -> None:
    plan = recipe(architecture="maxout", max_norm=0.3)
    inputs, labels = blobs()
    net = build(plan)
    fit(net, plan, inputs=inputs, labels=labels, checkpoint=tmp_path / "c.pt", report=ignore)
    for matrix in net.unit_weights():
        assert float(torch.linalg.vector_norm(matrix.detach(), dim=1).max()) <= 0.3 * (1 + 1e-5)


@pytest.mark.parametrize("kind", RECIPES)
def test_it_learns(tmp_path: Path, kind: str) -> None:
    plan = recipe(**{**RECIPES[kind], "epochs": 30})
    inputs, labels = blobs()
    net = build(plan)
    fit(net, plan, inputs=inputs, labels=labels, checkpoint=tmp_path / "c.pt", report=ignore)
    assert float((net(inputs).argmax(1) == labels).double().mean()) > 0.8


@pytest.mark.parametrize("damage", ["cut", "flipped", "one bit", "empty", "text"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: str) -> None:
    plan = recipe(**RECIPES["momentum"])
    train(plan, tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    middle = len(content) // 2
    (key, tensor), *_ = read_training_checkpoint(path, plan).parameters.items()  # type: ignore[union-attr]
    weights = tensor.numpy().tobytes()
    assert weights in content, key
    path.write_bytes(
        {
            "cut": content[:middle],
            "flipped": b"\x00" * 64 + content[64:],
            "one bit": content.replace(weights, bytes([weights[0] ^ 1]) + weights[1:]),
            "empty": b"",
            "text": b"not a checkpoint",
        }[damage]
    )
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: damaged.*start fresh"):
        train(plan, tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"layout": 1, "step": Path("x")}, path)  # a class of its own: not plain data
    with pytest.raises(WeightsError, match="damaged, or not a checkpoint"):
        train(recipe(**RECIPES["momentum"]), tmp_path)


def test_the_texts_of_a_recipe_make_no_other_training(tmp_path: Path) -> None:
    plan = recipe(**RECIPES["momentum"])
    train(plan, tmp_path)
    worded = plan.model_copy(update={"summary": "a line", "chosen": "so", "scaled": "down"})
    assert read_training_checkpoint(tmp_path / "checkpoint.pt", worded) is not None


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    plan = recipe(**RECIPES["momentum"])
    train(plan, tmp_path)
    with pytest.raises(RunFolderError, match="another training: seed 0, not 1"):
        train(plan.override(seed=1), tmp_path)
    with pytest.raises(RunFolderError, match="epochs 3, not 5"):
        train(plan.override(epochs=5), tmp_path)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_handled_between_two_steps_after_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A second press is handled at once; a training goes on from where the checkpoint is."""
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    plan = recipe(**RECIPES["adversarial"])
    expected = train(plan, tmp_path / "whole")

    def press(progress: TrainingProgress) -> None:
        if progress.step == 7:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(plan, tmp_path, press)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    checkpoint = read_training_checkpoint(tmp_path / "checkpoint.pt", plan)
    assert (checkpoint.step if checkpoint else None) == (7 if times == 1 else None)
    assert torch.equal(train(plan, tmp_path), expected)


def test_a_loss_that_is_not_finite_ends_its_epoch(tmp_path: Path) -> None:
    """An epoch has 13 steps, and a report comes after 20: the log gets no row of such an epoch."""
    wild = recipe(architecture="softmax", optimiser={"name": "sgd", "learning_rate": 1e38})
    logged: list[int] = []
    with pytest.raises(ModelError, match="in epoch 1 of 3"):
        fitted(wild, tmp_path, log=lambda history: logged.append(len(history)))
    assert not logged


def test_a_diverging_training_is_told(tmp_path: Path) -> None:
    wild = recipe(architecture="softmax", optimiser={"name": "sgd", "learning_rate": 1e38})
    with pytest.raises(ModelError, match=r"diverged.*lower learning rate"):
        train(wild, tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "rbf", "max_norm": 1.0}, "rbf has no norm"),
        ({"architecture": "softmax", "dropout": {"hidden": 0.5}}, "softmax has no hidden layer"),
        (
            {"architecture": "softmax", "optimiser": {**ADAM, "rates": {"centres": 1.0}}},
            "no parameter 'centres' in softmax, only weight, bias",
        ),
        (
            {"architecture": "softmax", "l1_decay": {"hidden1.weight": 0.1}},
            "l1_decay: no parameter 'hidden1.weight' in softmax",
        ),
        (
            {
                "architecture": "softmax",
                "adversarial": {"alpha": 0.5, "epsilon": "0.1", "perturbs": "hidden"},
            },
            "softmax has no hidden layer",
        ),
        ({"architecture": "maxout", "worst_case": {"epsilon": "0.1"}}, "no closed form"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        train(recipe(**change), tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    inputs, labels = blobs()
    plan = recipe(architecture="softmax")
    with pytest.raises((RunFolderError, WeightsError), match="can't be"):
        fit(
            build(plan),
            plan,
            inputs=inputs,
            labels=labels,
            checkpoint=tmp_path / "file" / "checkpoint.pt",
            report=ignore,
        )
