"""A gallery, and an illustration of every kind, for the tests that store and show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gibbon.records.gallery import Gallery, gallery_bytes, gallery_file, quantised, quantised_change
from gibbon.records.illustration import Addition, Answer, Filters, Illustration, LinearModel, Sweep

RANDOM = np.random.default_rng(0)
EVERY: tuple[Illustration, ...] = (
    Addition(
        title="a sum",
        model="net",
        source="a <photograph>",
        truth="espresso",
        epsilon="0.5",
        picture=np.full((4, 5, 3), 100, dtype=np.uint8),
        direction=np.sign(RANDOM.normal(size=(4, 5, 3))).astype(np.int8),
        before=Answer("espresso", 0.95),
        alone=Answer("envelope", 0.17),
        after=Answer("<consomme>", 0.19),
    ),
    LinearModel(
        title="weights",
        model="logistic",
        epsilon="0.25",
        classes=("3", "7"),
        weights=RANDOM.normal(size=(4, 4)).astype(np.float32),
        clean=np.zeros((3, 4, 4), dtype=np.uint8),
        attacked=np.full((3, 4, 4), -0.25, dtype=np.float32),
        label=np.array([0, 1, 1], dtype=np.int32),
        predicted=np.array([0, 1, 0], dtype=np.int32),
        misled=np.array([1, 0, 0], dtype=np.int32),
        clean_error=0.016,
        attacked_error=0.99,
    ),
    Filters(
        title="filters",
        models=("plain", "adversarially trained"),
        filters=RANDOM.normal(size=(2, 9, 4, 4)).astype(np.float16),
    ),
    Sweep(
        title="a sweep",
        model="net",
        example="example 4, a one",
        label=1,
        classes=("zero", "one"),
        epsilons=np.array([-2, -1, 0, 1, 2], dtype=np.float32),
        logits=np.array([[2, 1], [0, 1], [0, 3], [2, 1], [0, 1]], dtype=np.float32),
        shown=np.array([-2, 0, 2], dtype=np.float32),
        strip=np.zeros((3, 4, 4), dtype=np.float32),
    ),
)


def gallery(channels: int = 1, *, high: float = 1.0) -> Gallery:
    random = np.random.default_rng(channels)
    clean = random.uniform(0, high, size=(3, channels, 6, 5)).astype(np.float32)
    added = random.uniform(-0.2, 0.2, size=clean.shape).astype(np.float32)
    added[2] = 0
    change, scale = quantised_change(added)
    return Gallery(
        digest="cell",
        why=("random", "misled", "withstood"),
        example_id=np.array([3, 17, 40], dtype=np.int64),
        label=np.array([0, 1, 1], dtype=np.int32),
        before=np.array([0, 1, 1], dtype=np.int32),
        after=np.array([1, 0, 1], dtype=np.int32),
        sure_before=np.array([0.9, 0.8, 0.7], dtype=np.float32),
        sure_after=np.array([0.6, 0.99, 0.7], dtype=np.float32),
        valid=np.array([True, True, True]),
        clean=quantised(clean, low=0.0, high=high),
        change=change,
        scale=scale,
        low=0.0,
        high=high,
        shape=(6, 5),
    )


def write(run: Path, made: Gallery) -> None:
    path = gallery_file(run, made.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gallery_bytes(made))
