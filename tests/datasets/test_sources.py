"""From a spec to a dataset: what kind of source a text is, and which options each one takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from made_up_pictures import made_up, write_csv, write_folder

from gibbon.core.errors import RequestError, SpecError
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.open import KINDS, check_dataset, kind_of, open_dataset
from gibbon.specs.suite import DatasetSpec


def spec(source: object, **options) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "mine", "source": str(source), **options})


def refused(asked: DatasetSpec) -> str:
    with pytest.raises(SpecError) as raised:
        check_dataset(asked, where="s.toml: dataset")
    return str(raised.value)


def opened(asked: DatasetSpec, tmp_path, **request):
    return open_dataset(asked, DataRequest(folder=tmp_path / "cache", **request))


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("mnist", "registered"),
        ("torchvision:CIFAR100", "torchvision"),
        ("photos", "folder"),
        ("photos/", "folder"),
        ("list.csv", ".csv"),
        ("x.npz", ".npz"),
        ("x.npy", ".npy"),
        ("data.py:load", "factory"),
        ("data.py", "factory"),
        ("package.data:load", "factory"),
        ("./mnist", "folder"),
    ],
)
def test_a_source_is_told_by_what_it_is(tmp_path, monkeypatch, source, kind):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "mnist"):
        (tmp_path / name).mkdir()
    for name in ("list.csv", "x.npz", "x.npy", "data.py"):
        (tmp_path / name).touch()
    assert kind_of(source) is KINDS[kind]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "mnits",
            "unknown dataset 'mnits'; did you mean 'mnist'? Known: cifar10, cifar10-jpeg, "
            "cifar10-jpeg-whitened, cifar10-whitened, fashion-mnist, mnist, mnist-3v7; or give "
            "a folder of class folders, a .csv file of paths and labels, an "
            ".npz or .npy file, torchvision:NAME, path/to/data.py:FACTORY, "
            "package.module:FACTORY or rubbish:gaussian",
        ),
        ("photos/val", "no file or folder 'photos/val'"),
        ("list.csv", "no file 'list.csv'"),
        ("x.npz", "no file 'x.npz'"),
        ("data.py:load", "no file 'data.py'"),
        (
            "notes.txt",
            "'notes.txt' is a file of no kind that is known; expected a registered name, "
            "a folder of class folders, a .csv file of paths and labels, an .npz or .npy file, "
            "torchvision:NAME, path/to/data.py:FACTORY, package.module:FACTORY or "
            "rubbish:gaussian",
        ),
    ],
)
def test_what_is_not_there_is_told_with_the_forms_that_exist(
    tmp_path, monkeypatch, source, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert refused(spec(source)) == f"s.toml: dataset: {message}"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (
            "x.npz",
            {"resize": 8},
            "'x.npz' is a file of arrays, which has no use for resize; it takes inputs, labels, "
            "layout, bounds",
        ),
        (
            "photos",
            {"layout": "NCHW"},
            "'photos' is a folder of pictures, which has no use for layout; it takes class_map, "
            "class_order, resize, crop, interpolation, colour",
        ),
        (
            "photos",
            {"split": "train"},
            "'photos' is a folder of pictures, which has no use for split; it takes class_map, "
            "class_order, resize, crop, interpolation, colour",
        ),
        (
            "mnist",
            {"arguments": {"a": 1}},
            "'mnist' is a registered dataset, which has no use for arguments; it takes split",
        ),
        (
            "photos",
            {"interpolation": "bicubic", "crop": 8},
            "interpolation only applies to resized pictures: give resize, too",
        ),
        ("photos", {"class_map": "none.json"}, "class_map: no file 'none.json'"),
        ("x.npy", {}, "'x.npy' holds inputs alone: give labels, another .npy file"),
        ("x.npy", {"labels": "y.npy"}, "labels: no file 'y.npy'"),
    ],
)
def test_options_that_a_source_has_no_use_for_are_refused(
    tmp_path, monkeypatch, source, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("x.npz", "x.npy"):
        (tmp_path / name).touch()
    assert refused(spec(source, **options)) == f"s.toml: dataset: {message}"


def test_what_can_be_said_of_any_source_is_taken_by_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for source in ("mnist", "photos", "torchvision:FakeData"):
        check_dataset(spec(source, skip_unreadable=True), where="")
    check_dataset(spec("photos", class_map="imagenet"), where="")


def test_checking_loads_nothing_and_opening_tells_the_same(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff")
    check_dataset(spec(tmp_path / "x.csv"), where="")
    with pytest.raises(SpecError, match="dataset 'mine': unknown dataset 'nothing'"):
        opened(spec("nothing"), tmp_path)


def test_registered_names_are_opened_as_ever():
    dataset = open_dataset(spec("mnist", split="train"), DataRequest(split="train"))
    assert len(dataset) == 60_000
    assert dataset.digest == DATASETS.load("mnist")(DataRequest(split="train")).digest
    assert not dataset.partial


def test_a_split_of_a_registered_dataset_is_the_requests(tmp_path):
    assert len(opened(spec("mnist"), tmp_path)) == 10_000


# Factories.

FACTORIES = """
import torch

NUMBER = 3

class Data:
    def __init__(self, *, count=4):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, position):
        if position >= self.count:
            raise IndexError
        return torch.zeros(3, 2, 2), position

def tensors(count, **others):
    return torch.zeros(count, 3, 2, 2), torch.arange(count)

def nothing():
    pass

def broken():
    raise ValueError("no data today")
"""


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [("tensors", {"count": 5}, 5), ("tensors", {"count": 5, "more": 1}, 5), ("Data", {}, 4)],
)
def test_a_factory_returns_the_data(tmp_path, name, arguments, count):
    (tmp_path / "data.py").write_text(FACTORIES)
    dataset = opened(spec(f"{tmp_path}/data.py:{name}", arguments=arguments), tmp_path)
    assert dataset.name == "mine"
    assert dataset.labels.tolist() == list(range(count))
    assert dataset.partial


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Data", {"cuont": 3}, "takes no argument 'cuont'; did you mean 'count'?"),
        ("tensors", {}, "missing a required argument: 'count': give it in arguments"),
        ("NUMBER", {}, "must name a factory, a function that returns the data, got int"),
        ("tensor", {}, "has no 'tensor'; did you mean 'tensors'?"),
        ("broken", {}, "can't be made: ValueError: no data today"),
        ("nothing", {}, "or a DataLoader, got NoneType"),
    ],
)
def test_a_factory_that_does_not_do_is_told(tmp_path, name, arguments, message):
    (tmp_path / "data.py").write_text(FACTORIES)
    with pytest.raises(RequestError) as raised:
        opened(spec(f"{tmp_path}/data.py:{name}", arguments=arguments), tmp_path)
    assert message in str(raised.value)


# torchvision's.


def test_torchvisions_pictures_go_through_the_same_preparation(tmp_path):
    import torchvision

    arguments = {"size": 7, "image_size": (3, 12, 10), "num_classes": 4}
    asked = spec("torchvision:FakeData", arguments=arguments, resize=9, crop=8, colour="grey")
    dataset = opened(asked, tmp_path)
    theirs = torchvision.datasets.FakeData(**arguments)
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.labels.tolist() == [label for _, label in theirs]
    assert dataset.partial
    assert dataset.notes == ("7 pictures: RGB converted to L.",)
    picture = theirs[0][0].convert("L").resize((9, 10)).crop((0, 1, 8, 9))
    resized = torchvision.transforms.CenterCrop(8)(
        torchvision.transforms.Resize(9)(theirs[0][0].convert("L"))
    )
    assert picture.size == resized.size
    np.testing.assert_array_equal(
        dataset.batch(np.array([0])).inputs[0, 0] * 255, np.asarray(resized)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("CIFAR", {}, "torchvision has no dataset 'CIFAR'; did you mean 'CIFAR10'?"),
        ("ImageFolder", {}, "torchvision has no dataset 'ImageFolder'"),
        ("FakeData", {"sise": 3}, "torchvision:FakeData takes no argument 'sise'; did you mean"),
        ("FakeData", {"transform": 3}, "torchvision:FakeData: transform can't be set in arguments"),
        ("Kinetics", {}, "torchvision:Kinetics needs frames_per_clip: give it in arguments"),
        (
            "EMNIST",
            {"split": "none"},
            "torchvision:EMNIST can't be loaded (ValueError: Unknown value",
        ),
    ],
)
def test_torchvision_is_asked_for_what_it_has(tmp_path, name, arguments, message):
    with pytest.raises(RequestError) as raised:
        opened(spec(f"torchvision:{name}", arguments=arguments), tmp_path, download=False)
    assert str(raised.value).startswith(message)


def test_without_its_files_the_error_says_what_to_do(tmp_path):
    folder = tmp_path / "cache"
    with pytest.raises(RequestError) as raised:
        opened(spec("torchvision:CIFAR100"), tmp_path, download=False)
    message = str(raised.value)
    assert message.startswith("torchvision:CIFAR100 can't be loaded (RuntimeError: Dataset not")
    assert message.endswith(
        f"; put its files into {folder}, name the folder that holds them with --data-dir, or allow "
        "downloading"
    )


def test_the_split_is_asked_for_by_the_name_that_the_dataset_knows(tmp_path):
    for split, seed in (("train", 1), ("test", 2)):
        content = made_up(6, seed=seed)
        write_folder(tmp_path / "cache" / "country211" / split, content)
    digests = {
        opened(spec("torchvision:Country211", split=split), tmp_path, split=split).digest
        for split in ("train", "test")
    }
    assert len(digests) == 2


# No torch before it is needed.


def test_checking_a_spec_imports_no_torch(tmp_path):
    root = write_folder(tmp_path / "photos", made_up(6))
    path = write_csv(tmp_path / "listed", made_up(6))
    script = (
        "import sys\n"
        "from gibbon.datasets.open import check_dataset\n"
        "from gibbon.specs.suite import DatasetSpec\n"
        f"for source in ({str(root)!r}, {str(path)!r}, 'mnist', 'torchvision:CIFAR10'):\n"
        "    check_dataset(DatasetSpec(name='x', source=source), where='')\n"
        "assert not {'torch', 'torchvision', 'PIL'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
