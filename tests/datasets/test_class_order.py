"""The order of classes: which label a name gets, what is refused, and what is said about it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from gibbon.core.errors import DatasetError
from gibbon.datasets.array_dataset import HeldDataset
from gibbon.datasets.class_map import read_class_map
from gibbon.datasets.class_order import number_in, order_classes, whole_number
from gibbon.datasets.image_listing import Listing, list_csv, list_folder
from gibbon.datasets.wrap import adopt_data

TWELVE = [str(number) for number in range(12)]
AS_TEXT = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"]


def folder(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "x.png").touch()
    return root


def table(root: Path, labels: list[str]) -> Path:
    for place in range(len(labels)):
        (root / f"{place}.png").touch()
    rows = [f"{place}.png,{label}" for place, label in enumerate(labels)]
    path = root / "list.csv"
    path.write_text("\n".join(["path,label", *rows]))
    return path


def by_name(listing: Listing) -> dict[str, int]:
    places = zip(listing.paths, listing.labels.tolist(), strict=True)
    return {path.parent.name: label for path, label in places}


def refused(read: Any, *given: Any) -> str:
    with pytest.raises(DatasetError) as raised:
        read(*given)
    return str(raised.value)


@pytest.mark.parametrize(
    "names",
    [
        TWELVE,
        [f"class_{name}" for name in TWELVE],
        [f"{name}.0" for name in TWELVE],
        [f"{name}px" for name in TWELVE],
        ["9", "10"],
        ["-2", "-1"],
        ["c1", "c2", "c10"],
    ],
)
def test_numbers_that_text_sorts_otherwise_are_refused_with_both_orders(
    tmp_path: Path, names: list[str]
) -> None:
    told = refused(list_folder, folder(tmp_path, names), None)
    assert "the order of classes is ambiguous" in told
    assert f"As text: {', '.join(sorted(names))}." in told
    assert f"As numbers: {', '.join(names)}." in told
    assert "text (--class-order text)" in told
    assert "numeric (--class-order numeric)" in told
    assert ("index (--class-order index)" in told) == (whole_number(names[-1]) in (10, 11))


def test_the_option_says_which_order_is_meant(tmp_path: Path) -> None:
    root = folder(tmp_path, TWELVE)
    text, numeric, index = (
        list_folder(root, None, order) for order in ("text", "numeric", "index")
    )
    assert by_name(text) == {name: place for place, name in enumerate(AS_TEXT)}
    assert by_name(numeric) == by_name(index) == {name: int(name) for name in TWELVE}
    assert (text.partial, numeric.partial, index.partial) == (False, False, True)
    assert text.classes == tuple(AS_TEXT)
    assert text.class_order == (
        "names sorted as text, as torchvision's ImageFolder does: 2 is 10, 3 is 11, 4 is 2, 5 is "
        "3, 6 is 4, 7 is 5, 8 is 6, 9 is 7, 10 is 8, 11 is 9"
    )
    assert numeric.class_order == "names sorted by the numbers in them"


def test_an_index_may_have_gaps_and_a_position_has_none(tmp_path: Path) -> None:
    root = folder(tmp_path, ["3", "7", "9"])
    assert by_name(list_folder(root, None)) == {"3": 0, "7": 1, "9": 2}
    assert by_name(list_folder(root, None, "index")) == {"3": 3, "7": 7, "9": 9}
    told = refused(list_folder, folder(tmp_path / "b", ["ant", "bee"]), None, "index")
    assert "the class folders are not different whole numbers from 0 on: ant, bee" in told
    told = refused(list_folder, tmp_path / "b", None, "numeric")
    assert "are not different numbers, alone or in one text: ant, bee" in told
    told = refused(list_folder, folder(tmp_path / "c", ["1", "01"]), None, "index")
    assert "not different whole numbers" in told


@pytest.mark.parametrize(
    "names",
    [
        ["ant", "bee", "cat"],
        ["0", "1", "2"],
        [f"{number:02}" for number in range(12)],
        ["n01440764", "n01443537", "n02102040"],
        ["A320", "737-200", "DC-10"],
        ["1", "01"],
        ["Zebra", "ant"],
    ],
)
def test_other_names_are_sorted_as_text_as_image_folder_does(
    tmp_path: Path, names: list[str]
) -> None:
    from torchvision.datasets import ImageFolder

    root = folder(tmp_path, names)
    assert by_name(list_folder(root, None)) == ImageFolder(str(root)).class_to_idx


@given(st.sets(st.integers(0, 300), min_size=2, max_size=20), st.sampled_from(["", "c", "class_"]))
def test_no_order_is_chosen_where_two_differ(numbers: set[int], frame: str) -> None:
    names = [f"{frame}{number}" for number in sorted(numbers)]
    differ = sorted(names) != names
    try:
        found = order_classes(names, None, where="here", what="names").labels
    except DatasetError:
        assert differ
    else:
        assert not differ
        assert found == {name: place for place, name in enumerate(names)}


@given(st.text(string.printable, max_size=8))
def test_a_text_is_a_number_or_not(text: str) -> None:
    whole, number = whole_number(text), number_in(text)
    assert whole is None or float(whole) == number


def test_labels_that_pandas_wrote_as_floats_are_integers(tmp_path: Path) -> None:
    path = table(tmp_path, ["3.0", "0.0", "10.0", "2", " 1.0 ", "1e1"])
    listing = list_csv(path, None)
    assert listing.labels.tolist() == [3, 0, 10, 2, 1, 10]
    assert listing.partial
    assert listing.classes == tuple(map(str, range(11)))
    assert listing.class_order == (
        "labels are positions among the model's classes, written as decimals"
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["1.5", "2"], "list.csv, line 2: label 1.5 is no whole number: labels are positions"),
        (["0", "-1.0"], "list.csv, line 3: label -1: labels are positions"),
        (["1_0", "2"], "line 3 has a number for a label, '2', and line 2 a name, '1_0'"),
        (["9" * 400, "cat"], "line 3 a name, 'cat'"),
        (["nan", "2"], "line 3 has a number for a label, '2', and line 2 a name, 'nan'"),
        (["0", "1000000000"], "line 3: label 1000000000 has index 1,000,000,000 among"),
        (["c1", "c2", "c10"], "the order of classes is ambiguous"),
    ],
)
def test_labels_of_a_csv_file_that_are_no_positions_are_refused(
    tmp_path: Path, labels: list[str], said: str
) -> None:
    assert said in refused(list_csv, table(tmp_path, labels), None)


def test_numbers_in_a_csv_file_may_be_names_of_folders(tmp_path: Path) -> None:
    path = table(tmp_path, ["10", "2", "0"])
    assert list_csv(path, None).labels.tolist() == [10, 2, 0]
    assert list_csv(path, None, "text").labels.tolist() == [1, 2, 0]
    assert list_csv(path, None, "numeric").labels.tolist() == [2, 1, 0]
    assert list_csv(path, None, "index").labels.tolist() == [10, 2, 0]


def test_a_class_map_that_names_the_numbers_is_used(tmp_path: Path) -> None:
    path = table(tmp_path, ["3.0", "7", "3"])
    map_file = tmp_path / "map.json"
    map_file.write_text(json.dumps({"3": 1, "7": 0}))
    listing = list_csv(path, read_class_map(str(map_file)))
    assert listing.labels.tolist() == [1, 0, 1]
    assert listing.class_order == "by the class map map.json: 0 is 7, 1 is 3"
    map_file.write_text(json.dumps({"3": 1, "8": 0}))
    assert "class '7' is not in class map" in refused(list_csv, path, read_class_map(str(map_file)))
    map_file.write_text(json.dumps(["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]))
    listing = list_csv(path, read_class_map(str(map_file)))
    assert listing.labels.tolist() == [3, 7, 3]
    assert listing.class_order == (
        "labels are positions among the model's classes, written as decimals: 3 is dog, 7 is hen"
    )


def test_class_maps_are_read_as_pandas_and_people_write_them(tmp_path: Path) -> None:
    csv_map = tmp_path / "map.csv"
    csv_map.write_text("class,index\ncat,1.0\ndog,0.0\n")
    assert read_class_map(str(csv_map)).indices == (("cat", 1), ("dog", 0))
    csv_map.write_text("class,index\ncat,1.5\n")
    assert "must be a whole number, got '1.5'" in refused(read_class_map, str(csv_map))
    json_map = tmp_path / "map.json"
    json_map.write_text('{"cat": 1.0, "dog": 0}')
    assert read_class_map(str(json_map)).indices == (("cat", 1), ("dog", 0))
    json_map.write_text('{"cat": 1, "dog": 0, "cat": 2}')
    doubled = read_class_map(str(json_map))
    told = refused(list_folder, folder(tmp_path / "a", ["cat", "dog"]), doubled)
    assert "class 'cat' stands for the classes 1 and 2" in told
    json_map.write_text('{"cat": 1000000000}')
    assert "class 'cat' has index 1,000,000,000 among" in refused(read_class_map, str(json_map))
    json_map.write_text('{"cat": Infinity}')
    assert "expected" in refused(read_class_map, str(json_map))


LABELS = torch.tensor([0.0, 2.0, 1.0, 2.0])
INPUTS = torch.rand(4, 1, 3, 3)


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, LABELS),
        (INPUTS.numpy(), LABELS.double().numpy()),
        TensorDataset(INPUTS, LABELS),
        [(INPUTS[place], LABELS[place]) for place in range(4)],
        [(INPUTS[place], float(LABELS[place])) for place in range(4)],
        [(INPUTS[place], LABELS[place].numpy()) for place in range(4)],
    ],
)
def test_float_labels_that_are_integers_are_taken(data: Any) -> None:
    dataset = adopt_data(data, name="mine")
    assert dataset.labels.tolist() == [0, 2, 1, 2]
    assert dataset.class_order == "labels are positions among the model's classes"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 0.5, 1.0, 2.0], "got float64 of shape (4,), such as 0.5"),
        ([0.0, np.nan, 1.0, 2.0], "such as nan"),
        ([0.0, 1e300, 1.0, 2.0], "a label has index 9,007,199,254,740,992 among the model's"),
        ([0.0, -1.0, 1.0, 2.0], "example 1 has label -1"),
    ],
)
def test_other_float_labels_are_refused(labels: list[float], said: str) -> None:
    with pytest.raises(DatasetError) as raised:
        HeldDataset("mine", INPUTS.numpy(), labels=np.array(labels))
    assert said in str(raised.value)


def test_an_unsigned_label_beyond_all_classes_is_refused() -> None:
    labels = np.array([0, 1, 2**63, 1], dtype=np.uint64)
    assert "a label has index 9,223,372,036,854,775,808 among" in refused(
        lambda: HeldDataset("mine", INPUTS.numpy(), labels=labels)
    )
