"""Folders of class folders and CSV files: what is listed, what is passed over, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gibbon.core.errors import DatasetError
from gibbon.datasets.class_map import ClassMap, read_class_map
from gibbon.datasets.image_listing import list_csv, list_folder

MAP = ClassMap("map.json", (("cat", 7), ("dog", 2), ("eel", 2)))


def files(root: Path, *names: str) -> Path:
    """Empty files: a listing looks into none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def refused(read, place: Path, class_map: ClassMap | None = None) -> str:
    with pytest.raises(DatasetError) as raised:
        read(place, class_map)
    return str(raised.value)


def test_pictures_come_by_class_folder_then_by_name(tmp_path):
    root = files(tmp_path, "b/2.jpg", "b/10.jpg", "B/x.png", "a/z.PNG", "a/A.jpeg")
    listing = list_folder(root, None)
    assert [listing.say(path) for path in listing.paths] == [
        *("B/x.png", "a/A.jpeg", "a/z.PNG", "b/10.jpg", "b/2.jpg"),
    ]
    assert listing.labels.tolist() == [0, 1, 1, 2, 2]
    assert listing.classes == ("B", "a", "b")
    assert not listing.partial
    assert listing.notes == ()


def test_hidden_files_are_passed_over_and_stray_ones_mentioned(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", ".cache/x.jpg", "a/.DS_Store", "b/Thumbs.db"]
    listing = list_folder(files(tmp_path, *names, "README.md", "x.jpg"), None)
    assert len(listing.paths) == 2
    assert listing.notes == (
        "Skipped README.md, x.jpg next to the class folders.",
        "Skipped Thumbs.db in class folder 'b'.",
    )


def test_links_are_followed(tmp_path):
    files(tmp_path, "far/x.jpg", "root/b/y.jpg")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "root" / "b" / "z.jpg").symlink_to(tmp_path / "far" / "x.jpg")
    listing = list_folder(tmp_path / "root", None)
    assert [listing.say(path) for path in listing.paths] == ["a/x.jpg", "b/y.jpg", "b/z.jpg"]


def test_a_class_map_says_which_of_the_models_classes_a_folder_is(tmp_path):
    listing = list_folder(files(tmp_path, "dog/1.jpg", "cat/2.jpg", "eel/3.jpg"), MAP)
    assert listing.labels.tolist() == [7, 2, 2]
    assert listing.partial
    assert listing.classes == ("0", "1", "eel", "3", "4", "5", "6", "cat")


def test_with_a_class_map_one_class_is_enough_and_another_may_be_empty(tmp_path):
    assert list_folder(files(tmp_path / "one", "dog/1.jpg"), MAP).labels.tolist() == [2]
    files(tmp_path / "two", "dog/1.jpg")
    (tmp_path / "two" / "cat").mkdir()
    assert list_folder(tmp_path / "two", MAP).labels.tolist() == [2]


@pytest.mark.parametrize(
    ("names", "class_map", "message"),
    [
        (
            [],
            None,
            "{root}: has no class folders: expected CLASS/PICTURE.png or .jpg, found nothing; for "
            "pictures in one folder give a CSV file with the columns path,label",
        ),
        (
            [f"{k}.jpg" for k in range(7)],
            None,
            "{root}: has no class folders: expected CLASS/PICTURE.png or .jpg, found 0.jpg, 1.jpg, "
            "2.jpg, 3.jpg, 4.jpg and 2 more; for pictures in one folder give a CSV file with the "
            "columns path,label",
        ),
        (
            ["dogs/1.jpg"],
            None,
            "{root}: has one class folder only, 'dogs', and an error rate needs at least two "
            "classes; if it is one of the model's classes, say which with a class map",
        ),
        (
            ["cat/1.jpg", "dog/1.gif"],
            None,
            "{root}/dog: an empty class folder: no picture (.png, .jpg, .jpeg, .bmp, .webp, .tif, "
            ".tiff, .ppm) in it; remove it if the model has no such class, or give a class map",
        ),
        (
            ["cat/x.txt", "dog/1.gif"],
            MAP,
            "{root}: no picture (.png, .jpg, .jpeg, .bmp, .webp, .tif, .tiff, .ppm) in any class "
            "folder",
        ),
        (
            ["cat/1.jpg", "dogs/1.jpg"],
            MAP,
            "{root}/dogs: class 'dogs' is not in class map map.json; did you mean 'dog'?",
        ),
        (
            ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg"],
            None,
            "{root}/train: a class folder with a folder 'cat' in it: pictures must lie in "
            "CLASS/PICTURE.png or .jpg; if this folder holds the classes, name it as the dataset",
        ),
    ],
)
def test_folders_that_say_too_little_are_refused(tmp_path, names, class_map, message):
    root = files(tmp_path / "photos", *names)
    root.mkdir(exist_ok=True)
    assert refused(list_folder, root, class_map) == message.format(root=root)


# CSV files.


def table(folder: Path, text: str | bytes, *pictures: str) -> Path:
    files(folder, *pictures)
    path = folder / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_come_in_their_order_with_paths_relative_to_the_file(tmp_path):
    far = files(tmp_path / "far", "z.jpg") / "z.jpg"
    text = f'\ufefflabel, path ,source\r\n3,"b, c.jpg",me\r\n0,sub/a.jpg,\r\n3,{far},you\r\n\r\n'
    listing = list_csv(table(tmp_path / "here", text, "b, c.jpg", "sub/a.jpg"), None)
    assert [listing.say(path) for path in listing.paths] == ["b, c.jpg", "sub/a.jpg", str(far)]
    assert listing.labels.tolist() == [3, 0, 3]
    assert listing.partial
    assert listing.classes == ("0", "1", "2", "3")


def test_names_are_the_sorted_classes_unless_a_map_says_otherwise(tmp_path):
    path = table(tmp_path, "path,label\n1.jpg,eel\n2.jpg,cat\n", "1.jpg", "2.jpg")
    listing = list_csv(path, None)
    assert (listing.labels.tolist(), listing.classes) == ([1, 0], ("cat", "eel"))
    assert not listing.partial
    mapped = list_csv(path, MAP)
    assert (mapped.labels.tolist(), mapped.partial) == ([2, 7], True)


def test_with_numbers_a_class_map_names_the_classes(tmp_path):
    listing = list_csv(table(tmp_path, "path,label\n1.jpg,7\n", "1.jpg"), MAP)
    assert listing.labels.tolist() == [7]
    assert listing.classes[7] == "cat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\n1.jpg,0\n",
            ": has no column path: its first line must be a header with path,label, found "
            "'file,label'",
        ),
        (
            "1.jpg;0\n",
            ": has no column path and no column label: its first line must be a header with "
            "path,label, found '1.jpg;0'",
        ),
        ("", ": has no column path and no column label: its first line must be a header with "
            "path,label, found 'nothing'"),
        ("path,label\n", ": has no rows below its header"),
        ("path,label\n1.jpg,0\n,\n", ", line 3: no path and no label"),
        ("path,label\n1.jpg\n", ", line 2: no label"),
        (
            "path,label\n1.jpg,-1\n",
            ", line 2: label -1: labels are positions among the model's classes, counted from 0",
        ),
        (
            "path,label\n1.jpg,0\n1.jpg,cat\n",
            ": line 2 has a number for a label, '0', and line 3 a name, 'cat': give either, or a "
            "class map for the names",
        ),
        (
            "path,label\n1.jpg,cat\n1.jpg,cat\n",
            ": has one class only, 'cat', and an error rate needs at least two; if it is one of "
            "the model's classes, give its number or a class map",
        ),
        (
            "path,label\n" + "".join(f"{k}.jpg,0\n" for k in range(1, 9)),
            ": 7 of 8 pictures are not there: {folder}/2.jpg, {folder}/3.jpg, {folder}/4.jpg, "
            "{folder}/5.jpg, {folder}/6.jpg and 2 more; paths are relative to the CSV file's "
            "folder, or absolute",
        ),
        (
            'path,label\n"1.jpg,0\n',
            ": not a CSV file: unexpected end of data",
        ),
        (
            "path,label\n1.jpg,caf\xe9\n".encode("latin-1"),
            ": is not UTF-8: 'utf-8' codec can't decode byte 0xe9 in position 20: invalid "
            "continuation byte; save it as UTF-8",
        ),
    ],
)  # fmt: skip
def test_tables_that_say_something_impossible_are_refused(tmp_path, text, message):
    path = table(tmp_path, text, "1.jpg")
    assert refused(list_csv, path) == str(path) + message.format(folder=tmp_path)


def test_a_name_that_is_not_in_the_map_is_told_with_its_line(tmp_path):
    path = table(tmp_path, "path,label\n1.jpg,cat\n1.jpg,dogg\n", "1.jpg")
    expected = f"{path}, line 3: class 'dogg' is not in class map map.json; did you mean 'dog'?"
    assert refused(list_csv, path, MAP) == expected


# Class maps.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", '{"ant": 0, "bee": 1, "cat": 2}'),
        ("m.json", '["ant", "bee", "cat"]'),
        ("m.json", '{"0": ["n0", "ant"], "1": ["n1", "bee"], "2": ["n2", "cat"]}'),
        ("m.json", '{"0": "ant", "2": "cat", "1": "bee"}'),
        ("m.csv", "index, class\n2,cat\n0,ant\n1,bee\n"),
    ],
)
def test_every_form_of_a_class_map_is_read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    found = read_class_map(str(path))
    assert [found.index(each, where="") for each in ("ant", "bee", "cat")] == [0, 1, 2]
    assert found.names(5) == ("ant", "bee", "cat", "3", "4")


def test_a_class_goes_by_either_of_its_names(tmp_path):
    path = tmp_path / "imagenet.json"
    path.write_text(json.dumps({"0": ["n01440764", "tench"], "3": ["n01491361", "tiger_shark"]}))
    found = read_class_map(str(path))
    assert found.index("n01491361", where="") == found.index("tiger_shark", where="") == 3


def test_torchvisions_names_are_known():
    found = read_class_map("imagenet")
    assert found.index("tench", where="") == 0
    assert found.names(1000)[999] == "toilet tissue"
    with pytest.raises(DatasetError, match=r'photos: class .* knows names such as "tench" only: '):
        found.index("n01440764", where="photos")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("m.json", "{", "malformed JSON: Expecting property name"),
        ("m.json", "3", 'expected {"name": index}, a list of names, .* got int'),
        ("m.json", '{"ant": "0"}', '{"ant": "0"}: expected {"name": index}'),
        ("m.json", '{"ant": true}', '{"ant": true}: expected {"name": index}'),
        ("m.json", "[1, 2]", '{"0": \\[1\\]}: expected {"name": index}'),
        ("m.json", "[]", "is empty"),
        ("m.json", '{"ant": -1}', "class 'ant' has index -1: indices are positions among"),
        ("m.csv", "ant,0\n", "its first line must be a header with class,index, found 'ant,0'"),
        ("m.csv", "class,index\nant,one\n", "line 2: index must be a whole number, got 'one'"),
        ("none.json", None, "can't be read: No such file"),
    ],
)
def test_class_maps_that_say_something_impossible_are_refused(tmp_path, name, text, fault):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=f"class map {path}.*{fault}"):
        read_class_map(str(path))


def test_a_name_of_two_classes_is_refused_where_it_is_used(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"0": "crane", "1": "ant", "2": "crane"}')
    found = read_class_map(str(path))
    assert found.index("ant", where="") == 1
    with pytest.raises(DatasetError, match="'crane' stands for the classes 0 and 2 in class map"):
        found.index("crane", where="photos/crane")


def test_labels_are_int64(tmp_path):
    assert list_folder(files(tmp_path, "a/1.jpg", "b/1.jpg"), None).labels.dtype == np.int64
