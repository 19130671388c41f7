"""Suites written down so that they are found again from anywhere, and folders that lose nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.cli.grammar import parse_request
from gibbon.cli.suite_writer import results_folder, save_suite, suite_toml
from gibbon.core.errors import RunFolderError
from gibbon.records.flag_kinds import KINDS
from gibbon.records.run import Provenance, RunRecord
from gibbon.specs.decoding import decode_suite, parse_suite, read_suite
from gibbon.specs.naming import label_from
from gibbon.specs.suite import Suite

FIRST = "--model x/net.onnx --dataset mnist --attack fgsm --epsilon 0.1"


def asked_for(text: str) -> Suite:
    return parse_request(text.split()).suite


sources = st.sampled_from(
    [
        *("rbf", "mnist", "./mnist", "torchvision:resnet18", "package.module:Net", "a/net.onnx"),
        *("net.py:build", "../nets/net.py:build", "~/net.py:build", "/abs/net.pt2", "x/../net.pt2"),
        *("deep/photos", "../photos", "hf:org/name", "naïve/∞.npz", 'a "quoted"/file.csv'),
    ]
)
files = st.sampled_from(["w.safetensors", "x/w.pt", "random", "/abs/w.pt", "../w", "./w"])
# A suite may not hold NUL or lone surrogates, see `gibbon.core.reading.text_problem`.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.lists(st.integers(-9, 9), max_size=3)
)
keys = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True).filter(
    lambda key: key not in {"name", "label", "epsilon", "norm", "clip", "eot", "before"}
)
epsilons = st.sampled_from(["8/255", "0.1", "0.10", "16/255", "0", "1e-3"])


def table(required: dict[str, Any], optional: dict[str, Any]) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


models = table(
    {"model": sources},
    {
        "weights": files,
        "arguments": st.dictionaries(texts.filter(bool), scalars, max_size=2),
        "mean": st.just([0.5]),
        "trust_pickle": st.booleans(),
        "outputs": st.sampled_from(["logits", "probabilities"]),
    },
)
datasets = table(
    {"source": sources},
    {
        "split": st.sampled_from(["train", "test"]),
        "class_map": st.sampled_from(["imagenet", "c.json", "x/c.csv"]),
        "labels": st.sampled_from(["l.npy", "y"]),
        "resize": st.just([3, 4]) | st.integers(1, 9),
        "skip_unreadable": st.booleans(),
        "arguments": st.dictionaries(texts.filter(bool), scalars, max_size=2),
    },
)
attacks = st.tuples(
    table(
        {
            "name": st.sampled_from(["fgsm", "pgd", "foolbox:LinfPGD"]),
            "epsilon": st.lists(epsilons, min_size=1),
        },
        {
            "norm": st.sampled_from(["linf", "l2"]),
            "clip": st.booleans(),
            "carried": st.booleans(),
            "eot": st.integers(1, 50),
            "before": st.sampled_from(["softmax", "features.0"]),
            "backward": st.dictionaries(
                st.sampled_from(["quantise", "features.0"]),
                st.sampled_from(["identity", "f.py:soft", "../f.py:soft", "package.module:soft"]),
            ),
        },
    ),
    st.dictionaries(keys, scalars, max_size=2),
).map(lambda both: {**both[1], **both[0], "epsilon": list(dict.fromkeys(both[0]["epsilon"]))})


@st.composite
def suites(draw: Any) -> Suite:
    written = draw(
        table(
            {
                "name": st.just("mine"),
                "dataset": datasets,
                "models": st.lists(models, min_size=1, max_size=3),
                "attacks": st.lists(attacks, max_size=3),
            },
            {
                "seed": st.integers(0, 2**63 - 1),
                "title": texts,
                "description": texts,
                "accept": st.lists(st.sampled_from(sorted(KINDS)), max_size=2),
                "draws": st.integers(1, 50),
            },
        )
    )
    for place, model in enumerate(written["models"]):
        model["name"] = f"model-{place}"
        if "mean" in model:
            model["std"] = [2.0]
    written["dataset"]["name"] = "data"
    for place, attack in enumerate(written["attacks"]):
        if place:
            attack["label"] = f"attack-{place}"
        budgets = {"0.10": "0.1"}
        attack["epsilon"] = list(dict.fromkeys(budgets.get(e, e) for e in attack["epsilon"]))
    if draw(st.booleans()):
        written["error_only"] = True
    elif written["attacks"] and not written["attacks"][0].get("carried") and draw(st.booleans()):
        written["transfer"] = {"attacks": [label_from(written["attacks"][0]["name"])]}
    return decode_suite(written, where="drawn")


def texts_of(suite: Suite) -> list[list[str]]:
    return [[str(e) for e in each.epsilon] for each in suite.experiments[0].attacks]


@given(suites(), st.sampled_from([".", "suites", "deep/er", "..", "../beside"]))
def test_what_is_written_is_read_as_the_same_suite(suite: Suite, folder: str) -> None:
    text = suite_toml(suite, folder=Path(folder))
    again = parse_suite(text, where="written.toml", folder=Path(folder))
    assert again == suite
    assert texts_of(again) == texts_of(suite)


def words(suite: Suite) -> list[str | None]:
    (experiment,) = suite.experiments
    data = experiment.dataset
    found = [data.source, data.class_map, data.labels]
    return found + [word for each in experiment.models for word in (each.model, each.weights)]


@given(suites())
def test_paths_lead_to_the_same_files_from_anywhere(suite: Suite) -> None:
    text = suite_toml(suite, folder=Path("suites"))
    far = parse_suite(text, where="far.toml", folder=Path("suites").absolute())
    for here, there in zip(words(suite), words(far), strict=True):
        assert here == there or os.path.realpath(str(here)) == str(there)


def test_a_saved_suite_is_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    suite = asked_for(
        "--model nets/small.py:build --weights small.pt --mean 0.5 --std 0.25 --arg depth=3 "
        "--model rbf --dataset photos --crop 32 --epsilon 8/255,0.10 --attack fgsm --no-clip "
        "--attack pgd --steps 20 --random-start false --accept zero-gradient"
    )
    save_suite(suite, Path("new/folder/s.toml"))
    assert read_suite("new/folder/s.toml") == suite
    assert (
        Path("new/folder/s.toml").read_text()
        == """name = "photos-build+rbf"
accept = ["zero-gradient"]

[dataset]
name = "photos"
source = "../../photos"
crop = 32

[[models]]
name = "build"
model = "../../nets/small.py:build"
weights = "../../small.pt"
mean = [0.5]
std = [0.25]

[models.arguments]
depth = 3

[[models]]
model = "rbf"

[[attacks]]
name = "fgsm"
epsilon = ["8/255", "0.10"]
clip = false

[[attacks]]
name = "pgd"
epsilon = ["8/255", "0.10"]
steps = 20
random_start = false

[transfer]
attacks = ["fgsm", "pgd"]
"""
    )


def test_a_link_between_file_and_paths_is_no_trap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("real/deep").mkdir(parents=True)
    Path("link").symlink_to("real/deep")
    Path("net.onnx").write_text("here")
    save_suite(asked_for(FIRST.replace("x/", "")), Path("link/s.toml"))
    (model,) = read_suite("link/s.toml").experiments[0].models
    assert Path(model.model).read_text() == "here"


def test_a_file_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=r"s\.toml: can't be written: "):
        save_suite(asked_for(FIRST), tmp_path / "file" / "s.toml")


# Folders of results


def record(folder: Path, suite: Suite, *, limit: int | None = None) -> None:
    folder.mkdir(parents=True)
    empty = dict.fromkeys(("gibbon", "commit", "python", "platform", "device", "started"), "")
    origin = Provenance(**empty, dirty=None, libraries={}, threads=1, batch_size=1, limit=limit)
    RunRecord(suite=suite, status="running", provenance=origin).write(folder)


@pytest.mark.parametrize(
    ("then", "same"),
    [
        (FIRST, True),
        (f"{FIRST} --epsilon 0.2", True),
        (f"{FIRST} --attack pgd", True),
        (f"{FIRST} --accept zero-gradient", True),
        (f"{FIRST} --seed 1", False),
        (FIRST.replace("0.1", "0.2"), False),
        (FIRST.replace("fgsm", "pgd"), False),
        (FIRST.replace("x/net", "y/net"), False),
        (f"{FIRST} --weights random", False),
        (f"{FIRST} --split train", False),
        (f"{FIRST} --no-clip", False),
        (f"{FIRST} --carried", False),
        (f"{FIRST} --eot 2", False),
        (f"{FIRST} --before softmax", False),
        (f"{FIRST} --backward a=identity", False),
        (f"{FIRST} --draws 5", False),
        (f"{FIRST} --error-only", False),
    ],
)
def test_a_folder_goes_on_only_where_nothing_is_lost(tmp_path: Path, then: str, same: bool) -> None:
    record(tmp_path / "mnist-net", asked_for(FIRST))
    expected = "mnist-net" if same else "mnist-net-2"
    assert results_folder(tmp_path, asked_for(then), limit=None) == tmp_path / expected


def test_a_folder_of_another_sample_or_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    suite = asked_for(FIRST)
    assert results_folder(tmp_path, suite, limit=None) == tmp_path / "mnist-net"
    record(tmp_path / "mnist-net", suite, limit=9)
    (tmp_path / "mnist-net-2").mkdir()
    (tmp_path / "mnist-net-2" / "notes.txt").write_text("theirs")
    (tmp_path / "mnist-net-3").mkdir()
    (tmp_path / "mnist-net-3" / "run.json").write_text("{")
    (tmp_path / "mnist-net-4").write_text("a file")
    (tmp_path / "mnist-net-5").mkdir()
    assert results_folder(tmp_path, suite, limit=9) == tmp_path / "mnist-net"
    assert results_folder(tmp_path, suite, limit=None) == tmp_path / "mnist-net-5"
