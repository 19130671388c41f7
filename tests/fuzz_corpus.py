"""Makes the valid entries of the corpus: PYTHONPATH=. python tests/fuzz_corpus.py [FUNCTION ...]

Entries whose names begin with ``found-`` failed once: they stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import stored_pictures
import torch
from earlier_baselines import rewrite
from PIL import Image
from safetensors.torch import save_file

from gibbon.core.shard import Shard
from gibbon.gate.baseline import save_baseline
from gibbon.records.illustration import FOLDER as ILLUSTRATIONS
from gibbon.records.illustration import save_illustration
from gibbon.records.run import RunRecord
from gibbon.runner.counting import provenance
from gibbon.runner.run_folder import LOCK_FILE
from gibbon.runner.run_shard import run_shard
from gibbon.runner.run_suite import run_suite
from gibbon_zoo.recipe import RECIPES, read_recipe, shipped_recipe
from gibbon_zoo.training_checkpoint import TrainingCheckpoint, write_checkpoint
from gibbon_zoo.weights_folder import WEIGHTS
from tools.fuzz.cases import CORPUS
from tools.fuzz.fuzz_targets import code_of_shards, resumed_suite, settings, supplied

RANDOM = np.random.default_rng(0)

SUITES = {
    "short": """
name = "short"
dataset = "squares"
models = ["one"]
seed = 3
accept = ["preprocessing"]

[[attacks]]
name = "fgsm"
epsilon = ["8/255", "0.25"]
""",
    "experiments": """
name = "experiments"
title = "A title"
description = "Some words."
source = "Nobody (2026)"
certify = true
isolate = true
cell_timeout = 30
cell_memory = "4GB"

[[experiments]]
dataset = { name = "squares", source = "squares" }
models = ["one", "two", { name = "both", ensemble = ["net.py:build", "net.py:other"] }]
draws = 1
[[experiments.attacks]]
name = "pgd"
label = "pgd-2"
epsilon = ["0.1", "1/8"]
steps = 2
step_size = 0.05
random_start = false
[[experiments.attacks]]
name = "worst-of"
epsilon = "0.1"
attacks = [{ name = "fgsm" }, { name = "noise-sign" }]
[[experiments.attacks]]
name = "apgd-ce"
norm = "l2"
epsilon = 0.5
clip = false
optional = true
[experiments.transfer]
attacks = ["pgd-2"]

[[published]]
section = "4"
dataset = "squares"
model = "one"
attack = "pgd-2"
epsilon = "0.1"
measure = "adversarial_error"
value = 0.9
""",
    "arrays": """
name = "arrays"
models = [{ name = "net", model = "net.py:build", arguments = { width = 3 }, outputs = "logits" }]

[dataset]
source = "data.npz"
layout = "NCHW"
inputs = "x"
labels = "y"

[[attacks]]
name = "deepfool"
epsilon = "0.1"
norm = "linf"
steps = 3

[[attacks]]
name = "square"
epsilon = "0.1"
queries = 5
""",
    "pictures": """
name = "pictures"
dataset = { source = "pictures/", resize = 8, crop = [4, 4], colour = "grey", class_order = "text" }
models = [{ name = "n", model = "net.py:build", arguments = { width = 2 }, mean = [0], std = [1] }]

[[attacks]]
name = "fgsm"
epsilon = "0.1"
""",
}
NET = """
from torch import nn

def build(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width))

other = build
"""
LIMITS = """
max_increase = 2.5
accept = ["error-at-chance"]

[[limits]]
model = "one"
attack = "fgsm"
max_increase = 10

[[limits]]
dataset = "squares"
measure = "clean_error"
accept = ["preprocessing"]
"""


def entry(target: str, name: str) -> Path:
    folder = CORPUS / target / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def pictures(folder: Path, *names: str) -> None:
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = RANDOM.integers(0, 255, (5, 4, 3), dtype=np.uint8)
        pixels[0, 0] = place
        Image.fromarray(pixels).save(path)


def arrays(folder: Path) -> None:
    inputs = RANDOM.integers(0, 255, (6, 1, 4, 4), dtype=np.uint8)
    np.savez_compressed(folder / "data.npz", x=inputs, y=np.arange(6) % 3)


def suites() -> None:
    for name, text in SUITES.items():
        folder = entry("suites", name)
        (folder / "suite.toml").write_text(text.lstrip())
        if "net.py" in text:
            (folder / "net.py").write_text(NET.lstrip())
    arrays(CORPUS / "suites" / "arrays")
    pictures(CORPUS / "suites" / "pictures", "pictures/a/1.png", "pictures/b/2.png")


def run(folder: Path, **chosen: Any) -> None:
    provenance._commit = lambda: ("", None)  # type: ignore[attr-defined]
    run_suite(
        resumed_suite(),
        folder,
        settings=replace(settings(), **chosen),
        supplied=supplied(),
    )


def baselines() -> None:
    for target in ("baselines", "limits"):
        folder = entry(target, "version-5")
        run(folder / "run", examination=True)
        save_baseline(folder / "run", folder / "good.json", accept=serious_kinds(folder / "run"))
        shutil.rmtree(folder / "run")
        if target == "limits":
            (folder / "robust.toml").write_text(LIMITS.lstrip())
            shutil.copy(folder / "good.json", folder / "new.json")
            continue
        shutil.copy(folder / "good.json", folder / "baseline.json")
        for version in (2, 3, 4):
            earlier = entry(target, f"version-{version}")
            shutil.copy(folder / "good.json", earlier)
            shutil.copy(folder / "good.json", earlier / "baseline.json")
            rewrite(earlier / "baseline.json", version)


def serious_kinds(folder: Path) -> set[str]:
    return {flag.kind for flag in RunRecord.read(folder).flags if flag.severity == "serious"}


def run_folders() -> None:
    folder = entry("run-folders", "whole") / "run"
    run(folder, examination=True, pictures=True, keep_examples="all")
    (folder / LOCK_FILE).unlink(missing_ok=True)
    drawn = entry("reports", "illustrated") / "run"
    (drawn / "run.json").parent.mkdir()
    made_up.searching_record().write(drawn)
    for each in stored_pictures.EVERY:
        save_illustration(each, drawn / ILLUSTRATIONS)
    made = entry("run-folders", "made-up") / "run"
    made.mkdir()
    made_up.made_up_record().write(made)


def shards() -> None:
    folder = entry("shards", "two")
    chosen = replace(settings(), examination=True, keep_examples="misclassified")
    with code_of_shards():
        for index in (1, 2):
            run_shard(
                resumed_suite(),
                folder / str(index),
                shard=Shard(index, 2),
                settings=chosen,
                supplied=supplied(),
            )
            (folder / str(index) / LOCK_FILE).unlink(missing_ok=True)


def class_maps() -> None:
    maps = {
        "indices": ("map.json", json.dumps({"cat": 1, "dog": 2, "cow": 0})),
        "names": ("map.json", json.dumps(["dog", "cat"])),
        "imagenet": ("map.json", json.dumps({"0": ["n01", "cat"], "1": ["n02", "dog"]})),
        "csv": ("map.csv", "class,index\ncat,1\ndog,7\n"),
    }
    for name, (file, text) in maps.items():
        folder = entry("class-maps", name)
        (folder / file).write_text(text)
        pictures(folder / "pictures", "cat/1.png", "dog/2.png")


def lists() -> None:
    for name, labels in {"numbers": "0,1", "decimals": "0.0,2.0", "names": "cat,dog"}.items():
        folder = entry("lists", name)
        pictures(folder, "1.png", "b/2.png")
        rows = zip(("1.png", "b/2.png"), labels.split(","), strict=True)
        text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
        (folder / "list.csv").write_text(text)
        if name == "names":
            (folder / "map.json").write_text(json.dumps({"cat": 0, "dog": 1}))


def data_files() -> None:
    folder = entry("arrays", "npz")
    arrays(folder)
    folder = entry("arrays", "npy")
    np.save(folder / "x.npy", RANDOM.normal(size=(6, 4)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(6) % 3)
    names = ("a/1.png", "a/2.jpg", "b/3.bmp", "b/4.tif", "b/5.webp", "b/6.ppm")
    pictures(entry("pictures", "formats") / "pictures", *names)
    folder = entry("decode-caches", "one")
    pictures(folder, "pictures/a/1.png", "pictures/b/2.png")
    files = sorted((folder / "pictures").rglob("*.png"))
    header = [5, 4, "RGB", False, False, False]
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in files]
    facts = {each: [header, True] for each in digests}
    (folder / "cache.json").write_text(json.dumps({"format": 2, "pictures": facts}))
    folder = entry("proved-ids", "one")
    (folder / "proved.txt").write_text("# of example\n0\n17\n9999\n")


def zoo() -> None:
    for name in ("softmax", "maxout-adv", "rbf"):
        shutil.copy(RECIPES / f"{name}.toml", entry("recipes", name) / "r.toml")
    for name in ("softmax", "maxout"):
        card = json.loads((WEIGHTS / f"{name}.json").read_text())
        (entry("cards", name) / "card.json").write_text(json.dumps(card))
    folder = entry("training-checkpoints", "one")
    shutil.copy(RECIPES / "softmax.toml", folder / "r.toml")
    parameters = {"weight": torch.zeros(2, 2)}
    state = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1).state_dict()
    checkpoint = TrainingCheckpoint(3, 1.5, parameters, state, torch.tensor(0.5), [{"epoch": 1}])
    write_checkpoint(folder / "checkpoint.pt", checkpoint, read_recipe(folder / "r.toml"))
    assert shipped_recipe("softmax") == read_recipe(folder / "r.toml")
    tensors = {"1.weight": torch.zeros(3, 4), "1.bias": torch.ones(3)}
    save_file(tensors, entry("weights", "safetensors") / "w.safetensors")
    torch.save({"state_dict": tensors, "epoch": 3}, entry("weights", "pt") / "w.pt")
    torch.save(tensors, entry("weights", "legacy") / "w.pt", _use_new_zipfile_serialization=False)


MAKERS: tuple[Callable[[], None], ...] = (
    suites,
    baselines,
    run_folders,
    shards,
    class_maps,
    lists,
    data_files,
    zoo,
)

if __name__ == "__main__":
    for make in MAKERS:
        if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
            make()
