"""What a user has in hand, taken for a dataset: what is kept of it, and what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import planted
import pytest
import torch
import torchvision
from made_up_pictures import made_up, picture_of, write_folder
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    get_worker_info,
)
from torch.utils.data import Dataset as TorchDataset

from gibbon import evaluate
from gibbon.core.errors import DatasetError, ModelError
from gibbon.datasets import prefetch as reading
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.image_transforms import Preparation
from gibbon.datasets.map_dataset import RANDOM
from gibbon.datasets.wrap import adopt_data

INPUTS = torch.rand(12, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4
PAIRS = list(zip(INPUTS, LABELS, strict=True))


def refused(data: object, **options) -> str:
    with pytest.raises(DatasetError) as raised:
        adopt_data(data, name="mine", **options)
    return str(raised.value).removeprefix("dataset 'mine': ")


def whole(dataset) -> torch.Tensor:
    return dataset.batch(np.arange(len(dataset))).inputs


class Changing(TorchDataset):
    """Items are as the given function makes them of their position."""

    def __init__(self, make, *, count: int = 12) -> None:
        self.make = make
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int):
        return self.make(position)


class Stream(IterableDataset):
    """What the given function gives, each time anew."""

    def __init__(self, make) -> None:
        self.make = make

    def __iter__(self):
        return iter(self.make())


def test_a_dataset_of_ours_is_taken_as_it_is():
    dataset = ArrayDataset(
        "ours", np.zeros((2, 3), np.uint8), targets=np.array([0, 1]), classes=("a", "b")
    )
    assert adopt_data(dataset, name="mine") is dataset


def test_tensors_that_need_gradients_or_are_narrow_are_taken():
    inputs = (INPUTS > 0.5).to(torch.bfloat16).requires_grad_()
    dataset = adopt_data((inputs, LABELS), name="mine")
    assert torch.equal(whole(dataset), (INPUTS > 0.5).float())


def named(**attributes) -> Changing:
    data = Changing(lambda position: PAIRS[position])
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


FOUR = ("ant", "bee", "cat", "dog")
NUMBERS = ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("data", "classes", "partial"),
    [
        (named(classes=list(FOUR)), FOUR, False),
        (named(classes=[*FOUR, "eel"]), (*FOUR, "eel"), False),
        (named(classes=[("ant", "emmet"), "bee", "cat", "dog"]), ("ant, emmet", *FOUR[1:]), False),
        (named(class_to_idx={"bee": 1, "ant": 0, "cat": 2, "dog": 3}), FOUR, False),
        (Subset(named(classes=FOUR), [0, 1, 4]), FOUR, False),
        (Subset(Subset(named(classes=FOUR), [0, 1, 4]), [1]), FOUR, False),
        (ConcatDataset([named(classes=FOUR), named(classes=FOUR)]), FOUR, False),
        (DataLoader(named(classes=FOUR), shuffle=True), FOUR, False),
        (ConcatDataset([named(classes=FOUR), named(classes=FOUR[:3])]), NUMBERS, True),
        (named(), NUMBERS, True),
        (named(classes=["ant", "bee"]), NUMBERS, True),
        (named(classes=4), NUMBERS, True),
        (named(classes=[4, 3, 2, 1]), NUMBERS, True),
        (named(class_to_idx={"ant": 0, "bee": 217, "cat": 2, "dog": 3}), NUMBERS, True),
        (named(classes=FOUR, class_to_idx=dict(zip(FOUR, range(3, -1, -1), strict=True))),
         NUMBERS, True),
        (named(classes=FOUR, target_transform=int), NUMBERS, True),
    ],
)  # fmt: skip
def test_classes_that_a_torch_dataset_names_are_the_models_one_for_one(data, classes, partial):
    dataset = adopt_data(data, name="mine")
    assert (dataset.classes, dataset.partial) == (classes, partial)


def test_torchvisions_synonyms_may_be_shared_by_classes():
    names = [("crane",), ("crane", "bird"), ("maillot",), ("maillot", "suit")]
    index = {each: k for k, synonyms in enumerate(names) for each in synonyms}
    assert len(index) == len(names)
    dataset = adopt_data(named(classes=names, class_to_idx=index), name="mine")
    assert (dataset.classes[1], dataset.partial) == ("crane, bird", False)


def test_a_stream_names_its_classes_too():
    data = Stream(lambda: PAIRS)
    data.classes = list(FOUR)
    for each in (data, DataLoader(data, batch_size=5)):
        dataset = adopt_data(each, name="mine")
        assert (dataset.classes, dataset.partial) == (FOUR, False)


def test_a_folder_of_two_classes_is_not_scored_by_a_model_of_three(tmp_path):
    to_tensor = torchvision.transforms.ToTensor()
    root = write_folder(tmp_path, made_up(height=4, width=4))
    grey = torchvision.transforms.Grayscale()
    options = {"transform": torchvision.transforms.Compose([grey, to_tensor])}
    whole = torchvision.datasets.ImageFolder(root, **options)
    shutil.rmtree(root / "bee")  # "cat" becomes 1, where the model has "bee"
    some = torchvision.datasets.ImageFolder(root, **options)
    mapped = torchvision.datasets.ImageFolder(root, target_transform=[0, 2].__getitem__, **options)
    model = planted.Rows()
    with pytest.raises(ModelError, match=r"has 3 classes, .* has 2: .* a target_transform for"):
        evaluate(model, some, attack="fgsm", epsilon=0.1)
    clean = evaluate(model, mapped, attack="fgsm", epsilon=0.1).record.evaluations[0]
    subset = Subset(whole, [i for i, label in enumerate(whole.targets) if label != 1])
    expected = evaluate(model, subset, attack="fgsm", epsilon=0.1).record.evaluations[0]
    assert clean.examples == expected.examples == 8
    assert clean.clean_error == expected.clean_error


def test_made_up_pictures_of_torchvisions_name_no_classes():
    data = torchvision.datasets.FakeData(6, (3, 4, 4), num_classes=2)
    assert adopt_data(data, name="mine").partial


def test_labels_are_those_of_the_items_not_of_attributes():
    data = Changing(lambda position: (INPUTS[position], 3 - LABELS[position]))
    data.targets = LABELS
    assert adopt_data(data, name="mine").labels.tolist() == (3 - LABELS).tolist()


def test_pictures_are_prepared():
    content = made_up(4, height=9, width=7)
    data = Changing(lambda k: (picture_of(content.pixels[k]), 0), count=4)
    dataset = adopt_data(data, name="mine", preparation=Preparation(crop=5))
    assert dataset.input_shape == (3, 5, 5)
    expected = torch.from_numpy(content.pixels[:, :, 2:7, 1:6]).float() / 255
    assert torch.equal(whole(dataset), expected)


# Loaders.


def test_a_shuffling_loader_is_read_in_the_datasets_order():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for data in (PAIRS, TensorDataset(INPUTS, LABELS)):
        dataset = adopt_data(DataLoader(data, batch_size=5, shuffle=True), name="mine")
        assert torch.equal(whole(dataset), INPUTS)
        assert dataset.notes == (
            "The loader's shuffling changes nothing: ids are positions in its dataset.",
        )
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_dropped():
    loader = DataLoader(PAIRS, batch_size=5, drop_last=True)
    assert len(adopt_data(loader, name="mine")) == 12


def test_the_loaders_collate_fn_makes_the_inputs():
    def halved(items):
        inputs, labels = torch.utils.data.default_collate(items)
        return inputs / 2, labels

    loader = DataLoader(PAIRS, batch_size=5, collate_fn=halved)
    assert torch.equal(whole(adopt_data(loader, name="mine")), INPUTS / 2)


def test_a_sampler_of_some_takes_those_in_their_order():
    loader = DataLoader(PAIRS, sampler=SubsetRandomSampler([7, 2, 5]))
    dataset = adopt_data(loader, name="mine")
    assert torch.equal(whole(dataset), INPUTS[[2, 5, 7]])
    assert dataset.labels.tolist() == LABELS[[2, 5, 7]].tolist()
    assert dataset.notes == ("The loader's sampler takes 3 of 12 items, in their order.",)
    subset = adopt_data(Subset(PAIRS, [2, 5, 7]), name="mine")
    assert dataset.digest == subset.digest


def test_a_sampler_of_others_each_time_is_refused():
    sampler = RandomSampler(PAIRS, num_samples=5)
    assert refused(DataLoader(PAIRS, sampler=sampler)) == (
        "the loader's sampler takes other items each time, so that the result can't be repeated: "
        "give a Subset of its dataset"
    )


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_dataset_of_batches_is_taken_apart(batch_size):
    batches = [(INPUTS[k : k + 4], LABELS[k : k + 4]) for k in (0, 4, 8)]
    loaders = {
        None: DataLoader(Changing(batches.__getitem__, count=3), batch_size=None, shuffle=True),
        5: DataLoader(Stream(lambda: PAIRS), batch_size=5, num_workers=1),
    }
    dataset = adopt_data(loaders[batch_size], name="mine")
    assert torch.equal(whole(dataset), INPUTS)
    assert dataset.labels.tolist() == LABELS.tolist()


# What can't be repeated.


@pytest.mark.parametrize(
    "make",
    [
        lambda position: (torch.rand(3), 0),
        lambda position: (torch.zeros(3), int(torch.randint(2, ()))),
    ],
)
def test_items_that_change_are_refused_at_once(make):
    assert refused(Changing(make)).endswith(f"differs when read again: {RANDOM}")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_changes_later_is_refused_then(monkeypatch, workers):
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    inputs = INPUTS.clone()
    data = Changing(lambda position: (inputs[position], LABELS[position]))
    dataset = adopt_data(data, name="mine", workers=workers)
    inputs[3, 0, 0, 0] = 1 - inputs[3, 0, 0, 0]
    assert dataset.batch(np.array([2, 4])).ids.tolist() == [2, 4]
    with pytest.raises(DatasetError, match="item 3 differs from when it was first read: an item"):
        dataset.batch(np.array([2, 3]))


def random_label(k: int) -> int:
    return int(torch.randint(1000, ())) if k else 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: [(torch.rand(3), 0), (torch.rand(3), 1)],
        lambda: [(torch.rand(3) if k else torch.zeros(3), 0) for k in range(9)],
        lambda: [(torch.zeros(3), random_label(k)) for k in range(9)],
        lambda: [(torch.zeros(3), 0)] * (1 + int(torch.randint(1000, ()))),
    ],
    ids=["inputs", "later inputs", "labels", "number"],
)
@pytest.mark.parametrize("wrap", [Stream, lambda make: DataLoader(Stream(make), batch_size=4)])
def test_a_stream_that_changes_is_refused(make, wrap):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert refused(wrap(make)) == (
            "dataset 'mine' gives other examples when it is read again: results can't be "
            "repeated; leave out random transforms and shuffling"
        )


class Divided(Stream):
    """Every worker gives its share."""

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(self.make()[first::step])


@pytest.mark.parametrize("kind", [Stream, Divided])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_workers_give_each_example_of_a_stream_once(kind, batch_size):
    data = kind(lambda: PAIRS)
    state = torch.get_rng_state()
    dataset = adopt_data(DataLoader(data, batch_size=batch_size, num_workers=2), name="mine")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(whole(dataset), INPUTS)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.notes == (
        "The loader's stream was read by one process, not by 2 workers, each of which gives all "
        "examples unless the stream divides them.",
    )
    assert adopt_data(DataLoader(data, batch_size=batch_size), name="mine").notes == ()


def test_a_stream_that_ends_after_one_reading_is_taken():
    once = iter(PAIRS)
    dataset = adopt_data(Stream(lambda: once), name="mine")
    assert torch.equal(whole(dataset), INPUTS)


# What does not fit.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            3,
            "expected a pair (inputs, labels) of tensors or arrays, a torch Dataset whose items "
            "are pairs, or a DataLoader, got int",
        ),
        ((INPUTS, LABELS, LABELS), "item 0 is a Tensor: expected a pair of an input and a label"),
        (TensorDataset(INPUTS), "item 0 is a tuple of 1: expected a pair of an input and a label"),
        (
            [{"image": 1, "label": 2}],
            "item 0 is a dict with the keys 'image', 'label': expected a pair of an input and a "
            "label",
        ),
        ([("a.jpg", 2)], "item 0 holds a str: expected a tensor, an array or a PIL picture"),
        ([(INPUTS[0], "cat")], "item 0: a label must be the index of one class, got str "
            "'cat': give its index"),
        ([(INPUTS[0], 0.5)], "item 0: a label must be the index of one class, got float "
            "0.5: give its index"),
        (
            [(INPUTS[0], torch.rand(4))],
            "item 0: a label must be the index of one class, got torch.float32 of shape (4,): for "
            "one-hot or soft labels give the index of the largest",
        ),
        (
            [(INPUTS[0], 0), (INPUTS[1, :, 1:], 0)],
            "inputs must be alike: item 0 has shape (3, 4, 5), item 1 has (3, 3, 5)",
        ),
        (
            [(INPUTS[0], 0), (torch.zeros(3, 4, 5, dtype=torch.uint8), 0)],
            "inputs must be alike: item 0 has dtype float32, item 1 has uint8",
        ),
        (
            [(INPUTS[0].long(), 0)],
            ["item 0: inputs must be uint8, of which 255 stands for 1, or floating-point in [0, "
            "1], got int64", "discrete inputs, such as token ids, are not supported: attack the "
            "embeddings", "network.embedding(ids)"],
        ),
        (
            ConcatDataset([named(classes=FOUR), named(classes=FOUR[::-1])]),
            "the datasets of a ConcatDataset number their classes differently: 'ant' is 0 in one "
            "and 3 in another: give them one order, with a target_transform",
        ),
        (
            [(INPUTS[0] * 4 - 2, 0)],
            None,
        ),
        ([(INPUTS[0], -1)], "example 0 has label -1: labels are positions among the model's "
            "classes, counted from 0"),
        ([], "dataset 'mine' is empty"),
        (Stream(lambda: []), "dataset 'mine' is empty"),
        (DataLoader(Stream(lambda: []), batch_size=2), "dataset 'mine' is empty"),
        (
            Stream(lambda: [(INPUTS[0], 0), (INPUTS[1, :2], 0)]),
            "inputs must be alike: example 0 is float32 of shape (3, 4, 5), example 1 float32 of "
            "shape (2, 4, 5)",
        ),
    ],
)  # fmt: skip
def test_data_of_another_kind_are_refused(data, message):
    if isinstance(message, list):
        assert all(part in refused(data) for part in message)
    elif message is None:
        assert "leave Normalize out of the transform and give mean and std" in refused(data)
    else:
        assert refused(data) == message.removeprefix("dataset 'mine': ")


def test_pictures_of_mixed_sizes_are_refused_with_the_cure():
    content = made_up(2, height=9, width=7)
    small = picture_of(content.pixels[1][:, 1:])
    data = [(picture_of(content.pixels[0]), 0), (small, 1)]
    assert refused(data) == (
        "pictures of several sizes: item 0 is 9 x 7 (height x width), item 1 is 8 x 7: give one "
        "size for all, such as --resize 256 --crop 224"
    )


@pytest.mark.parametrize("data", [PAIRS, (INPUTS, LABELS), DataLoader(PAIRS)])
def test_tensors_are_not_resized(data):
    assert "apply to pictures" in refused(data, preparation=Preparation(resize=8))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_dataset_raises_is_told_with_its_item(workers):
    def make(position: int):
        if position == 5:
            raise KeyError("no such file")
        return PAIRS[position]

    said = refused(Changing(make, count=40), workers=workers)
    assert said.startswith("item 5 can't be read: KeyError: 'no such file' (")
    assert f"{Path(__file__).name}, line" in said


def test_a_collate_fn_that_is_given_one_item_must_give_one():
    loader = DataLoader(PAIRS, batch_size=2, collate_fn=lambda items: (INPUTS[:2], LABELS[:2]))
    assert refused(loader) == (
        "item 0: the loader's collate_fn must make a batch of one of one item, got Tensor"
    )


class _Stream(torch.utils.data.IterableDataset):
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return map(self.make, range(4))


def iter_of(make):
    """Returns a stream of what a function makes."""
    return _Stream(make)


PIXELS = np.linspace(0, 1, 4 * 1 * 3 * 3, dtype=np.float32).reshape(4, 1, 3, 3)


class Shows(torch.utils.data.Dataset):
    """Items that a function makes."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 4

    def __getitem__(self, position):
        return self.make(position)


class Silent(torch.Tensor):
    """Answers nothing."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("no answer")


BUFFER = torch.zeros(1, 3, 3)


def reused(position):
    BUFFER.copy_(torch.from_numpy(PIXELS[position]))
    return BUFFER, position % 2


@pytest.mark.parametrize(
    "data",
    [
        (PIXELS, pd.Series([0.0, 1.0, 0.0, 1.0])),
        (PIXELS, pd.Series([0, 1, 0, 1], index=[9, 8, 7, 6]).astype("Int64")),
        (PIXELS, np.array([False, True, False, True])),
        (torch.from_numpy(PIXELS).to_sparse(), torch.tensor([0, 1, 0, 1])),
        (torch._neg_view(-torch.from_numpy(PIXELS)), torch.tensor([0, 1, 0, 1])),
        (torch.from_numpy(PIXELS).as_subclass(Silent), torch.tensor([0, 1, 0, 1])),
        (np.ma.array(PIXELS), np.array([0, 1, 0, 1])),
        Shows(reused),
        Shows(lambda at: (torch.from_numpy(PIXELS[at]).to_sparse(), at % 2)),
        Shows(
            lambda at: (
                torch.from_numpy(PIXELS[at]).as_subclass(Silent),
                torch.tensor(at % 2).as_subclass(Silent),
            )
        ),
    ],
)
def test_inputs_and_labels_of_any_form_are_read_as_they_are(data):
    adopted = adopt_data(data, name="mine")
    batch = adopted.batch(np.arange(4))
    assert type(batch.inputs) is torch.Tensor
    np.testing.assert_allclose(batch.inputs.numpy(), PIXELS, atol=1e-7)
    assert batch.labels.tolist() == [0, 1, 0, 1]


def test_a_table_of_pandas_has_inputs_in_its_rows():
    table = pd.DataFrame({"a": [0.1, 0.2], "b": [0.3, 0.4]})
    adopted = adopt_data((table, pd.Series([1, 0])), name="mine")
    assert adopted.batch(np.arange(2)).inputs.tolist() == pytest.approx(
        np.array([[0.1, 0.3], [0.2, 0.4]], dtype=np.float32)
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((PIXELS, pd.Series(["a", "b", "a", "b"])), "give each the position of its class"),
        ((PIXELS, pd.Series([0.0, None, 1.0, 1.0])), "labels must be integers.*such as nan"),
        ((np.ma.masked_less(PIXELS, 0.1), np.zeros(4, int)), "values are missing"),
        (
            Shows(lambda _: sys.exit(0)),
            "item 0 can't be read: it ended the program, with exit code 0",
        ),
        (Shows(lambda at: next(iter([]))), "item 0 can't be read: StopIteration"),
        (
            iter_of(lambda _: sys.exit(0)),
            "number 0 of what it gives can't be read: it ended the program, with exit code 0",
        ),
        (iter_of(lambda _: 1 / 0), "number 0 of what it gives can't be read: ZeroDivisionError"),
    ],
)
def test_what_can_not_be_read_is_named(data, message):
    with pytest.raises(DatasetError, match=message):
        adopt_data(data, name="mine")
