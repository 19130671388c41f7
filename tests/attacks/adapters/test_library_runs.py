"""One attack of each library in one suite: planned, run, measured and filed like ours."""

import peers
import pytest

from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PACKAGES = ("foolbox", "torchattacks", "art", "adv_lib", "pyautoattack")
ATTACKS = (
    {"name": "foolbox:LinfPGD", "steps": 5, "rel_stepsize": 0.5},
    {"name": "torchattacks:DIFGSM", "steps": 5, "alpha": "1/20"},
    {"name": "art:ProjectedGradientDescentPyTorch", "max_iter": 5, "eps_step": "1/20"},
    {"name": "advlib:fmn", "norm": "linf"},
    {"name": "autoattack:standard"},
)


def test_each_library_runs_in_a_suite(tmp_path):
    for package in PACKAGES:
        peers.library(package)
    suite = Suite.model_validate(
        {
            "name": "libraries",
            "dataset": "mnist",
            "models": ["softmax"],
            "attacks": [{**attack, "epsilon": ["0.1", "0.2"]} for attack in ATTACKS],
        }
    )
    record = run_suite(suite, tmp_path, settings=RunSettings(device="cpu", limit=20))
    rows = {(row.attack, str(row.epsilon)): row for row in record.evaluations}
    assert {row.status for row in rows.values()} == {"done"}
    assert len(rows) == 1 + 2 * len(ATTACKS)
    for attack in ATTACKS:
        label = attack["name"].replace(":", "-")
        small, large = rows[label, "0.1"], rows[label, "0.2"]
        assert small.invalid_candidates == large.invalid_candidates == 0
        assert small.forward_passes > 0
        # A network without any defence: 0.2 misleads it mostly, also by what is made for transfer.
        assert small.adversarial_error <= large.adversarial_error
        assert large.adversarial_error >= 0.7
