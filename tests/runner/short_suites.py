"""Shipped suites with few steps and examples, for tests that run all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from test_worker_attacks import SMALL

from gibbon.core.import_path import is_reference
from gibbon.specs.decoding import read_suite
from gibbon.specs.suite import Suite

SUITES = sorted(
    each.stem for each in Path(__file__).parents[2].glob("benchmark/gibbon/suites/*.toml")
)
LISTS: dict[str, Any] = {
    "autoattack": {"steps": 4, "target_classes": 2, "queries": 10},
    "autoattack-l1": {"steps": 4, "restarts": 2, "target_classes": 2, "queries": 10},
    # The authors' list takes its number of steps from nobody: one of its members.
    "autoattack:standard": {"name": "autoattack:custom", "attacks": ["apgd-ce"]},
}
# Under whatever name a library has them.
MOST = {
    **dict.fromkeys(("steps", "max_iter", "queries", "num_steps"), 4),
    **dict.fromkeys(("restarts", "binary_search_steps", "nb_random_init", "num_random_init"), 2),
}
CLASSES = 10
NOT_SHIPPED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "cifar10-whitened": ((3, 32, 32), {"bounds": [-32.0, 32.0]}),
    "verified/sdp_mnist.npz": ((1, 28, 28), {}),
}


def short(name: str, folder: Path) -> Suite:
    """Returns a shipped suite with few steps.

    Weights and data that are not shipped are replaced by random ones, the latter in ``folder``.
    """
    suite = read_suite(name).model_dump(mode="json", exclude_none=True)
    for key in ("published", "claims"):
        suite.pop(key, None)
    for experiment in suite["experiments"]:
        experiment["dataset"] = _data(experiment["dataset"], folder)
        experiment["models"] = [_model(each) for each in experiment["models"]]
        experiment["attacks"] = [_attack(each) for each in experiment["attacks"]]
    return Suite.model_validate(suite)


def _attack(spec: dict[str, Any] | str) -> dict[str, Any]:
    spec = {"name": spec} if isinstance(spec, str) else spec
    fewer = {key: min(value, MOST[key]) for key, value in spec.items() if key in MOST}
    made = {**spec, **SMALL.get(spec["name"], {}), **LISTS.get(spec["name"], {}), **fewer}
    if "attacks" in spec:
        made["attacks"] = [_attack(each) for each in spec["attacks"]]
    return {**made, "optional": True} if ":" in spec["name"] else made


def _model(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    if isinstance(spec, str) or "weights" not in spec:
        return spec
    spec.pop("weights")
    if is_reference(spec["model"]):
        return spec
    return {**spec, "model": "maxout-adv" if "adv" in spec["model"] else "maxout"}


def _data(spec: dict[str, Any] | str, folder: Path) -> dict[str, Any] | str:
    """Returns a dataset of 256 random pictures in place of one that is not shipped."""
    spec = {"name": spec, "source": spec} if isinstance(spec, str) else spec
    given = NOT_SHIPPED.get(spec["source"])
    if given is None:
        return spec
    shape, more = given
    file, random = folder / f"{spec['name']}.npz", np.random.default_rng(0)
    labels = np.arange(256, dtype=np.int64) % CLASSES
    np.savez(file, inputs=random.random((256, *shape), dtype=np.float32), labels=labels)
    return {"name": spec["name"], "source": str(file), "layout": "NCHW", **more}
