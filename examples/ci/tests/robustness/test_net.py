"""The gate as a test: the fixture is of Gibbon's pytest plug-in."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from gibbon.datasets import DATASETS, DataRequest

ROOT = Path(__file__).parents[2]


def model() -> torch.nn.Module:
    space: dict[str, object] = {}
    exec((ROOT / "net.py").read_text(encoding="utf-8"), space)  # noqa: S102
    net: torch.nn.Module = space["build"]()  # type: ignore[operator]
    net.load_state_dict(load_file(ROOT / "net.safetensors"))
    return net


def test_robust_against_fgsm(robustness) -> None:
    data = DATASETS.load("mnist")(DataRequest())
    robustness.check(model(), data, attack="fgsm", epsilon=0.05, max_error=0.45, limit=200)
