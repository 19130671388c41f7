"""Every attack, ours and those of installed libraries, gives workers the answer of one process."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from worker_runs import QUICK, assert_same_runs, run

from gibbon.attacks import ATTACKS
from gibbon.specs.suite import Suite

# Small parameters of the attacks that take long.
SMALL: dict[str, dict[str, Any]] = {
    "apgd-ce": {"steps": 5},
    "apgd-dlr": {"steps": 5},
    "apgd-t": {"steps": 4, "n_target_classes": 2},
    "bim": {"steps": 4, "step_size": "1/20"},
    "cw": {"steps": 10, "searches": 2},
    "ddn": {"steps": 10},
    "deepfool": {"steps": 5},
    "di-mi-fgsm": {"steps": 3},
    "fab": {"steps": 4},
    "fab-t": {"steps": 4, "target_classes": 2},
    "fmn": {"steps": 10},
    "lbfgs": {"iterations": 3, "searches": 2},
    "mi-fgsm": {"steps": 4},
    "pgd": {"steps": 4, "restarts": 2},
    "pgd-l1": {"steps": 4},
    "square": {"queries": 20},
    "ti-mi-fgsm": {"steps": 3},
    "vmi-fgsm": {"steps": 2, "neighbours": 2},
    "worst-of": {"attacks": [{"name": "noise-sign"}, {"name": "pgd", "steps": 3}]},
}
LONG = ("autoattack", "autoattack-l1")  # lists of the attacks above, with their own parameters
FOREIGN: dict[str, dict[str, Any]] = {
    "foolbox:LinfPGD": {"steps": 4},
    "torchattacks:PGD": {"steps": 4, "alpha": 0.03},
    "art:ProjectedGradientDescentPyTorch": {"max_iter": 4, "eps_step": 0.03},
    "advlib:pgd_linf": {"steps": 4, "relative_step_size": 0.4},
}
BUDGETS = {"linf": "0.1", "l2": "1", "l1": "5"}


def attacks() -> list[dict[str, Any]]:
    written = []
    for name in ATTACKS.names():
        if name in LONG:
            continue
        norm = str(ATTACKS.load(name).norms[0])
        written.append(
            {"name": name, "epsilon": BUDGETS[norm], "norm": norm, **SMALL.get(name, {})}
        )
    for name, parameters in FOREIGN.items():
        library = name.partition(":")[0]
        if importlib.util.find_spec({"advlib": "adv_lib"}.get(library, library)):
            label = name.replace(":", "-")
            written.append({"name": name, "label": label, "epsilon": "0.1", **parameters})
    return written


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_every_attack_gives_workers_the_answer_of_one_process(
    tmp_path: Path, executor: str
) -> None:
    """Batches are those of one process, so that also attacks that are seeded by batch are equal."""
    if executor == "ray":
        pytest.importorskip("ray")
    suite = Suite.model_validate(
        {
            "name": "all-attacks",
            "dataset": "mnist",
            "models": ["softmax", "maxout"],
            "attacks": attacks(),
            "transfer": {"attacks": ["fgsm"]},
        }
    )
    sizes: dict[str, Any] = {"limit": 32, "batch_size": 4, **QUICK}
    run(suite, tmp_path / "one", **sizes)
    run(suite, tmp_path / "two", executor=executor, workers=2, **sizes)
    assert_same_runs(tmp_path / "two", tmp_path / "one")
