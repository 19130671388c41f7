"""Options of the command line: one table that help texts and the grammar are made from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from gibbon.specs.base import Precision

Group = Literal["Models", "Dataset", "Attacks", "Run"]


@dataclass(frozen=True)
class Option:
    """One option: its flag, whose it is, what it takes, and what it means.

    ``value`` is what the help calls its value; it takes none if empty.  ``read`` makes of the text
    what a suite holds, and raises ValueError with what it expected.
    """

    flag: str
    group: Group
    help: str
    value: str = ""
    read: Callable[[str], Any] = str
    key: str = ""
    many: bool = False
    constant: object = True

    @property
    def name(self) -> str:
        """The key that it sets."""
        return self.key or self.flag.removeprefix("--").replace("-", "_")


def scalar(text: str) -> Any:
    """Returns what a text means in a TOML file, or the text itself where it means nothing there.

    >>> scalar("20"), scalar("0.5"), scalar("false"), scalar("2/255"), scalar('"20"')
    (20, 0.5, False, '2/255', '20')
    """
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = read["value"]
    return value if len(read) == 1 and isinstance(value, bool | int | float | str | list) else text


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _whole(text, least=1, otherwise="auto or ")


def _whole(text: str, *, least: int, otherwise: str = "") -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or int(text) < least:
        raise ValueError(f"{otherwise}a whole number greater than or equal to {least}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, least=1)


def _count_or_none(text: str) -> int:
    return _whole(text, least=0)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError("numbers with commas between them, such as 0.485,0.456,0.406") from None


def _size(text: str) -> int | list[int]:
    try:
        sides = [_whole(part, least=1) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ValueError("one side such as 224, or height and width such as 224x160")
    return sides[0] if len(sides) == 1 else sides


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError("KEY=VALUE, such as depth=18")
    return key, scalar(value)


def _precision(text: str) -> Precision:
    if text not in ("float32", "bfloat16"):
        raise ValueError("float32 or bfloat16")
    return cast(Precision, text)


def _budgets(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


OPTIONS: tuple[Option, ...] = (
    Option(
        "--model",
        "Models",
        "Where a model comes from: a name of `list models`, path/to/net.py:build, "
        "package.module:Net, torchvision:resnet50, timm:NAME, robustbench:NAME, hf:ORG/NAME, a "
        "file: net.torchscript, net.pt2, net.onnx, or ensemble:A,B of such, or of other models by "
        "name. Several make a transfer matrix.",
        "SOURCE",
    ),
    Option("--name", "Models", "What the tables call it. [default: made from the source]", "NAME"),
    Option(
        "--weights",
        "Models",
        "A weights file: safetensors, or a state dict by torch.save; or a word that the source "
        "knows, such as random.",
        "FILE",
    ),
    Option(
        "--mean",
        "Models",
        "The model is given (x - mean) / std, a number a channel; x is in [0, 1].",
        "R,G,B",
        _numbers,
    ),
    Option("--std", "Models", "See --mean.", "R,G,B", _numbers),
    Option(
        "--outputs",
        "Models",
        "What its outputs are: logits, probabilities or log-scores. [default: what the source "
        "says, else logits]",
        "KIND",
    ),
    Option(
        "--arg",
        "Models",
        "An argument for the model's factory; may be given several times.",
        "KEY=VALUE",
        _pair,
        "arguments",
        many=True,
    ),
    Option(
        "--fuse",
        "Models",
        "In what an ensemble's members are fused: probabilities, logits or loss. "
        "[default: probabilities]",
        "KIND",
    ),
    Option(
        "--shares",
        "Models",
        "Of an ensemble's members in the whole, a number each. [default: equal]",
        "N[,N...]",
        _numbers,
    ),
    Option(
        "--trust-pickle",
        "Models",
        "Load a pickle that can run any code when it is loaded: you vouch for it.",
    ),
    Option(
        "--dataset",
        "Dataset",
        "Where the data come from: a name of `list datasets`, a folder of pictures "
        "(CLASS/picture.png), a CSV file of paths and labels, an .npz or .npy file, "
        "torchvision:NAME, or a factory such as path/to/data.py:load.",
        "SOURCE",
        key="source",
    ),
    Option("--split", "Dataset", "test or train, where there are both. [default: test]", "SPLIT"),
    Option(
        "--class-map",
        "Dataset",
        "JSON or CSV file of each class's index among the model's classes, or imagenet.",
        "FILE",
    ),
    Option(
        "--labels",
        "Dataset",
        "An .npy file of labels; in an .npz file, the array of that name.",
        "FILE",
    ),
    Option("--inputs", "Dataset", "In an .npz file, the array of inputs.", "NAME"),
    Option("--layout", "Dataset", "Axes of an array: NCHW, NHWC or NHW.", "AXES"),
    Option(
        "--resize",
        "Dataset",
        "Resize pictures: the shorter side to N, or to HxW. [default: as the models' own "
        "configuration says where pictures are of different sizes, else not at all]",
        "N|HxW",
        _size,
    ),
    Option(
        "--crop", "Dataset", "Then crop from the centre. [default: see --resize]", "N|HxW", _size
    ),
    Option(
        "--interpolation",
        "Dataset",
        "How pictures are resized: nearest, bilinear, bicubic or lanczos. [default: bilinear]",
        "KIND",
    ),
    Option("--colour", "Dataset", "Convert pictures to grey or rgb.", "KIND"),
    Option("--skip-unreadable", "Dataset", "Leave out pictures that can't be read, and say which."),
    Option(
        "--dataset-arg",
        "Dataset",
        "An argument for the dataset's factory; may be given several times.",
        "KEY=VALUE",
        _pair,
        "arguments",
        many=True,
    ),
    Option(
        "--attack",
        "Attacks",
        "A name of `list attacks`. Several are run one after the other.",
        "NAME",
        key="name",
    ),
    Option(
        "--epsilon",
        "Attacks",
        "How far it may go, in units of the input: 8/255, 0.1 or 2/255,8/255. [default: as the "
        "attack before it, else after it]",
        "E[,E...]",
        _budgets,
        many=True,
    ),
    Option("--norm", "Attacks", "linf or l2. [default: the attack's own first]", "NORM"),
    Option(
        "--no-clip",
        "Attacks",
        "Adversarial examples may leave the range of pixels.",
        key="clip",
        constant=False,
    ),
    Option(
        "--carried",
        "Attacks",
        "What succeeds at a smaller epsilon counts at every larger one, and is not tried again.",
    ),
    Option("--label", "Attacks", "What the tables call it. [default: its name]", "NAME"),
    Option(
        "--output", "Run", "Where results go. [default: results/runs/DATASET-MODELS]", "DIR", Path
    ),
    Option("--device", "Run", "auto, cpu, cuda, cuda:1 or mps. [default: auto]", "DEVICE"),
    Option(
        "--batch-size",
        "Run",
        "Examples in one pass; auto begins with a guess and halves it where memory runs out. "
        "Changes no result. [default: auto]",
        "auto|N",
        _batch_size,
    ),
    Option(
        "--precision",
        "Run",
        "What models compute in: float32 or bfloat16. [default: float32]",
        "KIND",
        _precision,
    ),
    Option("--compile", "Run", "Send models through torch.compile."),
    Option(
        "--models-in-memory",
        "Run",
        "Models kept on the device at once. [default: what fits]",
        "N",
        _count,
    ),
    Option(
        "--workers",
        "Run",
        "Processes that read pictures. [default: by the number of processors]",
        "N",
        _count_or_none,
    ),
    Option("--limit", "Run", "Take a fixed sample of this many examples.", "N", _count),
    Option("--fresh", "Run", "Compute everything again."),
    Option(
        "--data-dir",
        "Run",
        "Folder of datasets that are not embedded. [environment: GIBBON_DATA]",
        "DIR",
        Path,
    ),
    Option("--offline", "Run", "Download no dataset."),
    Option("--seed", "Run", "Of every random number. [default: 0]", "N", _count_or_none),
    Option(
        "--no-transfer",
        "Run",
        "Don't score models on each other's adversarial examples.",
        key="transfer",
        constant=False,
    ),
    Option(
        "--error-only",
        "Run",
        "Measure errors alone, faster: attacks stop at an example's first success. No confidence, "
        "no transfer.",
    ),
    Option(
        "--no-pictures",
        "Run",
        "Keep no pictures of a few examples for the report.",
        key="pictures",
        constant=False,
    ),
    Option("--save-suite", "Run", "Write the same as a suite, for `run FILE`.", "FILE", Path),
)
BY_FLAG = {option.flag: option for option in OPTIONS}
GROUPS: dict[Group, str] = {
    "Models": "What stands after a --model is about that model; before the first, about all.",
    "Dataset": "What is evaluated. Resizing and cropping belong to it, normalisation to models.",
    "Attacks": "What stands after an --attack is about that attack; before the first, about all. "
    "Any other option is the attack's own parameter, such as --steps 20.",
    "Run": "How it is done: none of this changes a result but --limit, --precision, --seed and "
    "--error-only.",
}
EXAMPLES = (
    "A model that comes with the package:",
    "    evaluate --model maxout --dataset mnist --attack fgsm --epsilon 0.1,0.25",
    "Your own network and pictures, two attacks:",
    "    evaluate --model nets/small.py:build --weights small.safetensors \\",
    "        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\",
    "        --dataset photos/val --resize 256 --crop 224 \\",
    "        --attack fgsm --epsilon 8/255 --attack pgd --steps 20",
    "How far examples made for one fool the other, kept as a suite:",
    "    evaluate --model torchvision:resnet50 --model timm:vit_small_patch16_224 \\",
    "        --dataset photos/val --class-map imagenet --attack pgd --epsilon 4/255 \\",
    "        --save-suite suites/transfer.toml",
)
REQUIRED = ("--model", "--dataset", "--attack")
_KEY_FLAGS = {(each.group, each.name): each.flag for each in OPTIONS}
