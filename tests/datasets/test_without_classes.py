"""Noise, folders and arrays whose inputs belong to no class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up_pictures import made_up, picture_of, write_csv, write_folder
from scipy.stats import kstest

from gibbon.core.errors import DatasetError, SpecError
from gibbon.core.threat import Bounds
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.open import open_dataset
from gibbon.datasets.rubbish import Rubbish
from gibbon.datasets.without_classes import WithoutClasses
from gibbon.specs.suite import DatasetSpec

BOX = Bounds(-2.0, 3.0)


def opened(source: str, folder: Path | None = None, *, seed: int = 0, **options: Any) -> Dataset:
    spec = DatasetSpec.model_validate({"source": source, **options})
    request = DataRequest(folder=folder or Path("unused"), workers=0, seed=seed)
    return open_dataset(spec, request)


def draws(dataset: Dataset) -> torch.Tensor:
    return dataset.batch(np.arange(len(dataset))).inputs


def test_the_draws_have_the_distribution_that_they_are_named_after() -> None:
    normal = draws(opened("rubbish:gaussian", shape=[7, 9], count=300)).flatten().numpy()
    assert kstest(normal, "norm").pvalue > 0.001
    assert normal.min() < -2 < 2 < normal.max()  # they are not clipped to [0, 1]
    uniform = draws(opened("rubbish:uniform", shape=[63], count=300, bounds=[-2, 3]))
    assert kstest((uniform.flatten().numpy() + 2) / 5, "uniform").pvalue > 0.001
    assert -2 <= uniform.min() <= uniform.max() <= 3


@given(
    kind=st.sampled_from(["gaussian", "uniform"]),
    ids=st.lists(st.integers(0, 29), min_size=1, max_size=9),
    seed=st.integers(0, 5),
)
def test_a_draw_depends_on_seed_and_id_alone(kind: Any, ids: list[int], seed: int) -> None:
    small = Rubbish("a", kind, shape=(2, 3), count=30, bounds=BOX, seed=seed)
    large = Rubbish("b", kind, shape=(2, 3), count=90, bounds=BOX, seed=seed)
    found = small.batch(np.array(ids)).inputs
    assert torch.equal(found, draws(large)[ids])
    other = Rubbish("c", kind, shape=(2, 3), count=30, bounds=BOX, seed=seed + 1)
    assert not torch.isclose(found, other.batch(np.array(ids)).inputs).all()


def test_the_digest_covers_what_changes_the_draws_and_no_name() -> None:
    def digest(kind: Any = "uniform", **other: Any) -> str:
        given = {"shape": (2, 3), "count": 30, "bounds": BOX, "seed": 0, **other}
        return Rubbish(given.pop("name", "a"), kind, **given).digest

    same = [digest(), digest(name="b")]
    others = [
        digest(seed=1), digest(count=31), digest(shape=(3, 2)), digest("gaussian"),
        digest(bounds=Bounds(0.0, 1.0)),
    ]  # fmt: skip
    assert len(set(same)) == 1
    assert len({*same, *others}) == 6
    # The bounds of the models' inputs are no part of draws that they do not limit.
    assert digest("gaussian") == digest("gaussian", bounds=Bounds(0.0, 1.0))


def test_inputs_without_a_class_have_neither_labels_nor_classes(tmp_path: Path) -> None:
    content = made_up()
    folder = write_folder(tmp_path / "photos", content)
    with_classes = opened(str(folder), tmp_path)
    without = opened(str(folder), tmp_path, classes="none")
    assert torch.equal(draws(without), draws(with_classes))
    assert set(without.labels.tolist()) == {-1}
    assert without.batch(np.array([3, 1])).labels.tolist() == [-1, -1]
    assert (without.classes, without.info.no_class, without.class_order) == ((), True, "")
    assert without.digest != with_classes.digest
    for ids in without.batches([np.array([0, 2]), np.array([5])]):
        assert set(ids.labels.tolist()) == {-1}


def test_a_folder_of_pictures_needs_no_class_folders(tmp_path: Path) -> None:
    content = made_up(4)
    places = ["b.png", "a.png", "more/c.png", "more/and more/d.png"]
    for place, pixels in zip(places, content.pixels, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        picture_of(pixels).save(tmp_path / place)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    found = opened(str(tmp_path), tmp_path / "cache", classes="none")
    assert len(found) == 4
    expected = torch.from_numpy(content.pixels[[1, 0, 3, 2]]).float() / 255
    assert torch.equal(draws(found), expected)
    assert any("notes.txt" in note for note in found.notes)
    with pytest.raises(DatasetError, match="no class folders"):
        opened(str(tmp_path / "more" / "and more"), tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no picture"):
        opened(str(tmp_path / "empty"), tmp_path / "cache", classes="none")


def test_a_csv_file_needs_no_labels(tmp_path: Path) -> None:
    content = made_up(5)
    full = write_csv(tmp_path / "csv", content)
    bare = full.with_name("bare.csv")
    lines = full.read_text().splitlines()
    bare.write_text("\n".join(line.split(",")[0] for line in lines) + "\n")
    expected = torch.from_numpy(content.pixels).float() / 255
    for file in (full, bare):
        assert torch.equal(draws(opened(str(file), tmp_path, classes="none")), expected)
    with pytest.raises(DatasetError, match="no column label"):
        opened(str(bare), tmp_path)
    bare.write_text("path\nmissing.png\n")
    with pytest.raises(DatasetError, match="1 of 1 pictures are not there"):
        opened(str(bare), tmp_path, classes="none")


def test_arrays_need_no_labels(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    np.savez(tmp_path / "bare.npz", inputs=inputs)
    np.savez(tmp_path / "full.npz", inputs=inputs, labels=np.arange(6))
    np.save(tmp_path / "bare.npy", inputs)
    (tmp_path / "data.py").write_text(
        f"import numpy as np\ndef load():\n    return np.load({str(tmp_path / 'bare.npy')!r})\n"
    )
    for source in ("bare.npz", "full.npz", "bare.npy", "data.py:load"):
        found = opened(str(tmp_path / source), classes="none")
        assert torch.equal(draws(found), torch.from_numpy(inputs)), source
        assert set(found.labels.tolist()) == {-1}
    with pytest.raises(DatasetError, match="may be the labels"):
        opened(str(tmp_path / "bare.npz"))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("rubbish:gausian", {}, "did you mean 'gaussian'"),
        ("rubbish:", {}, "Known: rubbish:gaussian, rubbish:uniform"),
        ("rubbish:gaussian", {}, r"give shape, such as \[1, 28, 28\]"),
        ("rubbish:gaussian", {"split": "train"}, "no use for split; it takes count, shape, bounds"),
        ("mnist", {"count": 3}, "no use for count"),
        ("mnist", {"shape": [3]}, "shape is for noise"),
        ("x.npy", {"classes": "none", "labels": "y.npy"}, "without a class: leave out labels"),
        ("pictures", {"classes": "none", "class_map": "m.json"}, "leave out class_map"),
    ],
)
def test_what_does_not_apply_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((2, 3), np.float32))
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SpecError, match=message):
        opened(source, **options)


def test_a_registered_dataset_can_be_taken_without_its_classes() -> None:
    found = opened("mnist", classes="none")
    assert isinstance(found, WithoutClasses)
    assert (found.info.no_class, len(found), found.input_shape) == (True, 10_000, (1, 28, 28))
