"""The check of a GPU, on the CPU and on a played device, with a tiny network."""

import json

import pytest
from played_device import played

from tools import gpu_check


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(gpu_check, "ATTACKS", gpu_check.ATTACKS[:2])
    ours = gpu_check.run_on_device

    def short(on, attack, *, device):
        extra = {"steps": 2, "queries": 5} if attack["name"] == "autoattack" else {"steps": 2}
        return ours(on, {**attack, **extra}, device=device)

    monkeypatch.setattr(gpu_check, "run_on_device", short)
    monkeypatch.setitem(gpu_check.sys.modules, "pyautoattack", None)  # its 5,000 queries take long


def test_the_record_holds_equality_and_ratios(tmp_path, capsys):
    file = tmp_path / "record.json"
    assert gpu_check.main([str(file), "--device", "cpu", "--small"]) == 0
    record = json.loads(file.read_text())
    assert [each["attack"] for each in record["equality"]] == ["fgsm", "pgd 5"]
    assert all(each["changed"] == 0 for each in record["equality"])
    assert all(each["times_ours"] > 0 for each in record["ratios"])
    assert "fgsm: 0.00% changed" in capsys.readouterr().out


@pytest.mark.played
def test_another_device_is_compared_with_the_cpu():
    on = gpu_check.subject(gpu_check.SIZES["tiny"])
    with played() as device:
        found = gpu_check.equalities(on, device=str(device))
    assert [each.changed for each in found] == [0, 0]
