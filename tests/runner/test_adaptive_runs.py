"""Runs with `eot`, `backward`, `before` and draws: the numbers, and what they cost and store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from torch import Tensor, nn

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import wilson_interval
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import PROBABILITIES
from gibbon.records.outcomes import Outcome, read_outcome
from gibbon.records.run import Evaluation, RunRecord
from gibbon.specs.suite import Suite

COUNT = planted.EXAMPLES
Suites = Callable[..., Suite]


class Noisy(planted.Rows):
    """Adds noise to the scores, a number for each example or one for the whole batch."""

    def __init__(self, seed: int = 0, *, shared: bool = False) -> None:
        super().__init__(seed)
        self.shared = shared

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        rows = 1 if self.shared else len(outputs)
        return outputs + 0.4 * torch.randn(rows, planted.CLASSES)


class Cut(nn.Module):
    """Hands its input on without a gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.detach()


class Hidden(planted.Rows):
    """Scores behind a part without a gradient, before a softmax that saturates."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, factor=200.0)
        self.cut, self.softmax = Cut(), nn.Softmax(1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.softmax(super().forward(self.cut(inputs)))


@pytest.fixture
def models(plant: planted.Plant) -> planted.Plant:
    """Random models, a defended one, and what it is without its defences."""
    plant.model("noisy", lambda: planted.classifier(Noisy(1)))
    plant.model("noisy-2", lambda: planted.classifier(Noisy(2)))
    plant.model("coin", lambda: planted.classifier(Noisy(1, shared=True)))
    plant.model("hidden", lambda: planted.classifier(Hidden(1), outputs=PROBABILITIES))
    plant.model("bare", planted.rows(1, factor=200.0))
    return plant


PGD = {"name": "pgd", "epsilon": "0.05", "steps": 4}
WITHOUT = {"backward": {"cut": "identity"}, "before": "softmax"}


def attacked(record: RunRecord) -> Evaluation:
    (row,) = (row for row in record.evaluations if not row.unattacked)
    return row


def clean(record: RunRecord) -> Evaluation:
    return next(row for row in record.evaluations if row.unattacked)


def outcome(record: RunRecord, folder: Path, row: Evaluation) -> Outcome:
    found = read_outcome(folder / "outcomes", row.digest)
    assert found is not None
    return found


def shares(record: RunRecord, folder: Path, row: Evaluation) -> np.ndarray:
    (digest,) = (card.digest for card in record.models if card.name == row.model)
    return outcome(record, folder, row).wrong_share(digest)


# backward and before


def test_the_adapted_attack_is_that_on_the_model_without_its_defences(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    adapted = attacked(run(suite({**PGD, **WITHOUT}, models=("hidden",)), "adapted"))
    bare = attacked(run(suite(PGD, models=("bare",)), "bare"))
    naive_suite = suite({"name": "noise-sign", "epsilon": "0.05"}, models=("hidden",))
    naive = attacked(run(naive_suite, "naive"))
    assert adapted.adversarial_error == bare.adversarial_error
    assert adapted.adversarial_error > naive.adversarial_error
    assert (adapted.forward_passes, adapted.backward_passes) == (5 * COUNT, 4 * COUNT)


def test_the_clean_prediction_is_the_models_own(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    record = run(suite({"name": "fgsm", "epsilon": "0.05", **WITHOUT}, models=("hidden",)))
    own = run(suite("noise-sign", models=("hidden",)), "own")
    for name in ("clean_error", "mean_confidence"):
        assert getattr(clean(record), name) == pytest.approx(getattr(clean(own), name))


def test_a_model_without_gradients_is_a_source_once_it_has_a_view_with_some(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    with pytest.raises(RequestError, match="its outputs have no gradient in its inputs"):
        run(suite(PGD, models=("hidden",)))
    record = run(suite({**PGD, "backward": {"cut": "identity"}}, models=("hidden",)), "other")
    assert attacked(record).status == "done"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"before": "sofmax"}, "suite planted: attacks[0]: 'pgd' on 'hidden': it has no submodule"),
        ({"backward": {"cutt": "identity"}}, "did you mean 'cut'?"),
        ({"backward": {"cut": "identiy"}}, "attacks[0].backward.cut: expected 'identity'"),
        ({"before": "cut"}, "submodules that take this shape: softmax"),
        ({"eot": 4}, "the outputs have no gradient in the inputs"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path, keys: Any, message: str
) -> None:
    with pytest.raises(RequestError) as raised:
        run(suite({**PGD, **keys}, models=("hidden",)))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["eot", "backward"])
def test_gradients_are_for_attacks_that_take_some(
    run: planted.Run, suite: Suites, models: planted.Plant, key: str
) -> None:
    value = {"eot": 4, "backward": {"cut": "identity"}}[key]
    attack = {"name": "square", "epsilon": "0.1", "queries": 3, key: value}
    message = rf"attacks\[0\].{key}: attack 'square' takes no gradients, which {key} is about"
    with pytest.raises(RequestError, match=message):
        run(suite(attack, models=("hidden",)))


def test_an_attack_without_gradients_may_see_the_logits(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    attack = {"name": "square", "epsilon": "0.1", "queries": 30, "before": "softmax"}
    adapted = attacked(run(suite(attack, models=("hidden",))))
    plain = {"name": "square", "epsilon": "0.1", "queries": 30}
    bare = attacked(run(suite(plain, models=("bare",)), "bare"))
    assert adapted.adversarial_error == pytest.approx(bare.adversarial_error, abs=2 / COUNT)


# digests


def digests(record: RunRecord) -> dict[str, str]:
    return {row.attack: row.digest for row in record.evaluations}


def test_keys_that_change_nothing_keep_the_digest(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    plain = digests(run(suite("pgd"), "plain"))
    assert digests(run(suite({"name": "pgd", "epsilon": "0.1", "eot": 1}), "one")) == plain
    none = {"name": "pgd", "epsilon": "0.1", "backward": {}}
    assert digests(run(suite(none, draws=7), "none")) == plain


def test_keys_change_the_digest_of_the_attacked_cell_alone(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    function = tmp_path / "stand_in.py"
    text = "def same(inputs):\n    return inputs * {}\n"
    function.write_text(text.format(1))
    variants: list[dict[str, Any]] = [
        {"backward": {"cut": "identity"}},
        {"backward": {"cut": f"{function}:same"}},
        WITHOUT,
        {**WITHOUT, "eot": 2},
    ]
    found = [
        digests(run(suite({**PGD, **keys}, models=("hidden",)), f"{place}"))
        for place, keys in enumerate(variants)
    ]
    assert len({each["none"] for each in found}) == 1
    assert len({each["pgd"] for each in found}) == len(variants)
    moved = tmp_path / "elsewhere.py"
    moved.write_text('"""Moved."""\n' + text.format(1))
    keys = {"backward": {"cut": f"{moved}:same"}}
    assert digests(run(suite({**PGD, **keys}, models=("hidden",)), "moved")) == found[1]
    moved.write_text(text.format(2))
    assert digests(run(suite({**PGD, **keys}, models=("hidden",)), "moved")) != found[1]


def test_parameters_and_notes_name_the_keys(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    row = attacked(run(suite({**PGD, **WITHOUT, "eot": 2}, models=("hidden",))))
    expected = {**WITHOUT, "eot": 2}
    assert {key: row.parameter_values[key] for key in expected} == expected


# eot and draws


@pytest.mark.parametrize("eot", [1, 3])
@pytest.mark.parametrize("model", ["noisy", "coin"])
def test_batch_size_and_order_change_nothing(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path, model: str, eot: int
) -> None:
    written = suite({**PGD, "eot": eot}, models=(model,), draws=6)
    record = run(written, "whole", batch_size=COUNT)
    expected = shares(record, tmp_path / "whole", attacked(record))
    assert 0 < expected.mean() < 1
    assert (expected % 1 != 0).any()
    other = run(written, "parts", batch_size=7)
    found = shares(other, tmp_path / "parts", attacked(other))
    # A borderline draw may fall on the other side by rounding.
    assert np.mean(np.abs(found - expected) < 1e-6) > 0.95
    before = shares(record, tmp_path / "whole", clean(record))
    assert np.allclose(before, shares(other, tmp_path / "parts", clean(other)))
    limited = run(written, "limited", limit=20)
    own = outcome(limited, tmp_path / "limited", attacked(limited))
    part = shares(limited, tmp_path / "limited", attacked(limited))
    assert np.mean(np.abs(part - expected[own.example_id]) < 1e-6) > 0.9


SEVERAL: list[dict[str, Any]] = [
    {"name": "fgsm"},
    {"name": "vmi-fgsm", "steps": 2},
    {"name": "pgd", "steps": 3, "restarts": 2, "keep": "first-success"},
    {"name": "apgd-t", "steps": 4, "n_target_classes": 2, "keep": "first-success"},
    {"name": "ddn", "norm": "l2", "steps": 4},
    {"name": "worst-of", "attacks": [{"name": "pgd", "steps": 2}, {"name": "apgd-ce", "steps": 3}]},
]


@pytest.mark.parametrize("eot", [1, 2])
@pytest.mark.parametrize("attack", SEVERAL, ids=lambda each: str(each["name"]))
def test_nor_do_they_if_examples_leave_the_batch(
    run: planted.Run,
    suite: Suites,
    models: planted.Plant,
    tmp_path: Path,
    attack: dict[str, Any],
    eot: int,
) -> None:
    """What an attack draws does not depend on how long the batch of an earlier epsilon took."""
    spec = {**attack, "epsilon": ["0.1", "0.03"], "eot": eot}
    found = []
    for size in (COUNT, 7):
        record = run(suite(spec, models=("noisy",), draws=4), f"{size}", batch_size=size)
        rows = [row for row in record.evaluations if not row.unattacked]
        found.append(np.concatenate([shares(record, tmp_path / f"{size}", row) for row in rows]))
    assert np.mean(np.abs(found[0] - found[1]) < 1e-6) > 0.95


def test_passes_of_draws_are_counted(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    record = run(suite({**PGD, "eot": 3}, models=("noisy",), draws=6))
    assert clean(record).forward_passes == 6 * COUNT
    row = attacked(record)
    assert (row.forward_passes, row.backward_passes) == ((4 * 3 + 6) * COUNT, 4 * 3 * COUNT)
    steady = attacked(run(suite({**PGD, "eot": 3}), "steady"))
    assert (steady.forward_passes, steady.backward_passes) == ((4 * 3 + 1) * COUNT, 12 * COUNT)


def test_the_error_is_the_mean_share_with_an_interval_over_examples_and_draws(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    record = run(suite({**PGD, "eot": 2}, models=("noisy",)))
    for row, name in ((attacked(record), "adversarial_error"), (clean(record), "clean_error")):
        found = shares(record, tmp_path / "run", row)
        assert np.allclose(np.rint(found * 20), found * 20, atol=1e-4)
        rate, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
        assert rate == pytest.approx(found.mean())
        assert low < rate < high
        yes_or_no = wilson_interval(rate * COUNT, COUNT)
        assert yes_or_no.low <= low
        assert high <= yes_or_no.high  # more is known than from one draw of each
        assert row.draws == 20
        assert row.misclassified == np.count_nonzero(found > 0.5)


def test_one_draw_is_as_before(run: planted.Run, suite: Suites, models: planted.Plant) -> None:
    record = run(suite(PGD, models=("noisy",), draws=1))
    assert clean(record).forward_passes == COUNT
    assert clean(record).draws == 1
    (flag,) = (each for each in record.flags if each.kind == "random-answers" and not each.attack)
    assert flag.severity == "serious"


def test_draws_belong_to_the_digest(run: planted.Run, suite: Suites, models: planted.Plant) -> None:
    found = [
        digests(run(suite(PGD, models=("noisy",), **keys), f"{place}"))
        for place, keys in enumerate([{}, {"draws": 5}, {"seed": 1}, {"draws": 20}])
    ]
    assert found[0] == found[3]
    assert len({each["none"] for each in found}) == 3


def test_random_answers_are_flagged_as_far_as_they_matter(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    averaged = {**PGD, "label": "averaged", "eot": 2}
    record = run(suite(PGD, averaged, "noise-sign", models=("noisy", "one")))
    found = {(each.attack, each.severity) for each in record.flags if each.kind == "random-answers"}
    assert found == {("", "note"), ("pgd", "serious")}
    rows = {row.attack: row.flags for row in record.evaluations if row.model == "noisy"}
    assert all("random-answers" in kinds for kinds in rows.values())


def test_the_best_of_several_tries_is_judged_by_other_draws(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    """Noise alone: the best of many tries by its own draws would look better than it is."""
    one = attacked(run(suite({**PGD, "steps": 1, "eot": 2}, models=("noisy",), draws=4)))
    many = {**PGD, "steps": 1, "restarts": 6, "eot": 2}
    best = attacked(run(suite(many, models=("noisy",), draws=4), "best"))
    assert best.forward_passes == (6 * 2 + 6 * 4 + 4) * COUNT
    assert best.adversarial_error < one.adversarial_error + 0.15


# lists, carried epsilons, transfers, resumed runs


def test_members_inherit_the_keys_of_the_list_or_have_their_own(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    listed = [{"name": "pgd", "steps": 3}, {"name": "square", "queries": 4}]
    whole = {"name": "worst-of", "epsilon": "0.05", "attacks": listed, **WITHOUT}
    own = {
        **whole,
        "attacks": [{**listed[0], **WITHOUT}, {**listed[1], "before": "softmax"}],
        **dict.fromkeys(WITHOUT),
    }
    bare = {"name": "worst-of", "epsilon": "0.05", "attacks": listed}
    rows = [
        attacked(run(suite(whole, models=("hidden",)), "whole")),
        attacked(run(suite(own, models=("hidden",)), "own")),
        attacked(run(suite(bare, models=("bare",)), "bare")),
    ]
    assert len({row.adversarial_error for row in rows}) == 1
    assert len({row.digest for row in rows}) == 3
    assert len({row.forward_passes for row in rows[:2]}) == 1
    assert "before softmax" in str(rows[1].parameter_values["attacks"])


def test_a_list_is_judged_member_by_member_on_the_whole_model(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    listed = [{"name": "pgd", "steps": 3}, {"name": "apgd-ce", "steps": 4}]
    attack = {"name": "worst-of", "epsilon": "0.05", "attacks": listed, **WITHOUT}
    joint = attacked(run(suite(attack, models=("hidden",)), "joint"))
    apart = run(suite(attack, models=("hidden",), error_only=True), "apart")
    assert attacked(apart).adversarial_error == joint.adversarial_error
    assert apart.members[-1].error_after == attacked(apart).worst_case_error


def test_a_list_without_gradients_takes_no_eot(
    run: planted.Run, suite: Suites, models: planted.Plant
) -> None:
    listed = {"name": "worst-of", "epsilon": "0.1", "attacks": ["square", "noise-sign"], "eot": 2}
    with pytest.raises(RequestError, match="'worst-of' takes no gradients, which eot is about"):
        run(suite(listed))
    member = {**listed, "attacks": ["pgd", {"name": "square", "eot": 2}]}
    with pytest.raises(RequestError, match=r"attacks\[1\].eot: attack 'square' takes no gradients"):
        run(suite(member))
    lost = {"name": "worst-of", "epsilon": "0.1", "attacks": [{"name": "pgd", "before": "no"}]}
    with pytest.raises(RequestError, match="member 'pgd': it has no submodule 'no'"):
        run(suite(lost))


def test_lists_of_a_random_model_leave_out_what_most_draws_misclassify(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    attack = {
        "name": "worst-of",
        "epsilon": "0.05",
        "eot": 2,
        "attacks": [{"name": "pgd", "steps": 2}, {"name": "fgsm"}],
    }
    joint = run(suite(attack, models=("noisy",), draws=5), "joint")
    apart = run(suite(attack, models=("noisy",), draws=5, error_only=True), "apart")
    for record, folder in ((joint, "joint"), (apart, "apart")):
        row = attacked(record)
        found = shares(record, tmp_path / folder, row)
        assert row.adversarial_error == pytest.approx(found.mean())
        assert row.worst_case_error >= row.misclassified / COUNT
    assert attacked(apart).adversarial_error == pytest.approx(
        attacked(joint).adversarial_error, abs=0.15
    )


@pytest.mark.parametrize("attack", [{"name": "fgsm"}, {"name": "pgd", "steps": 2}])
def test_carried_shares_stay_with_their_candidates(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path, attack: dict[str, Any]
) -> None:
    spec = {**attack, "epsilon": ["0.02", "0.06"], "carried": True, "eot": 2}
    record = run(suite(spec, models=("noisy",), draws=5))
    small, large = (row for row in record.evaluations if not row.unattacked)
    before, after = (shares(record, tmp_path / "run", row) for row in (small, large))
    done = before > 0.5
    assert done.any()
    assert (before[done] == after[done]).all()
    assert (after[~done] != before[~done]).any()
    assert large.misclassified >= small.misclassified


@pytest.mark.parametrize("places", [None, 1])
def test_a_random_target_is_judged_by_draws_too(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path, places: int | None
) -> None:
    """Also if it is scored later, because the models don't fit into memory together."""
    written = suite(PGD, models=("one", "noisy"), transfer=("pgd",), draws=5)
    record = run(written, models_in_memory=places)
    crossed = next(row for row in record.transfers if (row.source, row.target) == ("one", "noisy"))
    digest = next(card.digest for card in record.models if card.name == "noisy")
    found = read_outcome(tmp_path / "run" / "outcomes", crossed.digest)
    assert found is not None
    share = found.wrong_share(digest)
    assert crossed.error == pytest.approx(share.mean())
    assert (share % 1 != 0).any()
    own = next(card.digest for card in record.models if card.name == "one")
    assert found.scores[own].wrong_share is None  # in one file with a model that answers alike
    assert set(np.unique(found.wrong_share(own))) <= {0.0, 1.0}
    expected = run(written, "other", models_in_memory=None)
    rows = [row for row in expected.transfers if (row.source, row.target) == ("one", "noisy")]
    assert rows[0].error == pytest.approx(crossed.error)


def test_an_interrupted_run_goes_on_with_the_same_draws(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    written = suite({**PGD, "eot": 2}, models=("noisy",), draws=5)
    expected = run(written, "whole", batch_size=10)
    module = Noisy(1)
    calls = iter(range(10_000))
    forward = module.forward

    def stop(inputs: Tensor) -> Tensor:
        if next(calls) == 80:
            raise KeyboardInterrupt
        return forward(inputs)

    module.forward = stop  # type: ignore[method-assign]
    models.model("noisy", lambda: planted.classifier(module))
    with pytest.raises(KeyboardInterrupt):
        run(written, "cut", batch_size=10, save_every=0)
    assert list((tmp_path / "cut" / "outcomes").glob("*.partial.parquet"))
    module.forward = forward  # type: ignore[method-assign]
    models.model("noisy", lambda: planted.classifier(Noisy(1)))
    record = run(written, "cut", batch_size=10, save_every=0)
    assert digests(record) == digests(expected)
    for name in ("adversarial_error", "forward_passes", "clean_error"):
        assert getattr(attacked(record), name) == getattr(attacked(expected), name)


def test_pictures_of_adapted_attacks_are_recovered(
    run: planted.Run, suite: Suites, models: planted.Plant, tmp_path: Path
) -> None:
    attack = {**PGD, **WITHOUT}
    run(suite(attack, models=("hidden",)), pictures=True)
    run(suite({**PGD, "eot": 2}, models=("noisy",), draws=3), "noisy", pictures=True)
    assert list((tmp_path / "run" / "pictures").glob("*.npz"))
    assert list((tmp_path / "noisy" / "pictures").glob("*.npz"))


@pytest.mark.parametrize("name", ["ddn", "deepfool", "fab"])
def test_searches_for_the_nearest_example_see_the_view(
    run: planted.Run, suite: Suites, models: planted.Plant, name: str
) -> None:
    attack = {"name": name, "epsilon": "0.5", "norm": "l2", "steps": 6}
    adapted = attacked(run(suite({**attack, **WITHOUT}, models=("hidden",))))
    bare = attacked(run(suite(attack, models=("bare",)), "bare"))
    assert adapted.nearest_median == pytest.approx(bare.nearest_median, rel=1e-3)
    assert adapted.nearest_found == bare.nearest_found
    noisy = attacked(run(suite({**attack, "eot": 2}, models=("noisy",), draws=5), "noisy"))
    assert noisy.nearest_median is not None
    assert 0 < noisy.adversarial_error < 1


def test_compiled_models_are_seen_uncompiled(models: planted.Plant) -> None:
    from gibbon.runner.device.precision import Variant, vary

    plain = planted.classifier(Hidden(1), outputs=PROBABILITIES)
    varied = vary(plain, Variant("bfloat16", compiled=True))
    assert varied.eager is not None
    assert isinstance(varied, Classifier)
    from gibbon.models.attacked_view import attacked_view
    from gibbon.specs.adaptation import Adaptation

    inputs = torch.rand(3, *planted.SHAPE)
    keys = Adaptation(backward=(("cut", "identity"),), before="softmax")
    with varied.evaluating():
        view = attacked_view(varied, keys, inputs=inputs)
        outputs, gradient = view.ascend(inputs, torch.ones_like)
    assert outputs.dtype == torch.float32
    assert bool(gradient.any())
    assert (varied.passes.forward, varied.passes.backward) == (3, 3)
