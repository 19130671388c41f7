"""Options of the command line: one table that help texts and the grammar are made from."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from gibbon.core.errors import SpecError
from gibbon.core.reading import expanded
from gibbon.records.flag_kinds import flag_kind
from gibbon.records.stores import Store, is_url, open_store
from gibbon.runner.settings import LEAST, ExecutorName, Precision, RunSettings
from gibbon.specs.keep_examples import parse_keep_examples
from gibbon.specs.memory_sizes import parse_bytes
from gibbon.specs.suite import Direction

OptionGroup = Literal["Models", "Dataset", "Attacks", "Run"]


@dataclass(frozen=True)
class Option:
    """An option of ``evaluate``: a row of the table that the help and the grammar are made from.

    The signature of `gibbon.evaluate` is written out, for editors and type checkers; tests hold its
    names, defaults and texts to this table.

    Args:
        usage: the option as it is written, with a placeholder if it takes a value, such as
            ``--limit N``.
        help: sentences that can be read alone.
        default: the value without the option, as the help shows it; not shown if empty.
        read: converts the text; raises ValueError that says what was expected.
        name: the key of a spec, or the field of `RunSettings`, that it sets, which is also the
            argument of `evaluate`; made from the flag, without ``no-``, if empty.
        many: whether the option may be repeated, its values being collected.
        constant: what an option without a value sets; always False for ``--no-...``.
        formerly: an earlier flag of the option, which `run` still takes.
    """

    usage: str
    help: str
    default: str = ""
    read: Callable[[str], Any] = str
    name: str = ""
    many: bool = False
    constant: bool = True
    formerly: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            word = self.flag.removeprefix("--").removeprefix("no-")
            object.__setattr__(self, "name", word.replace("-", "_"))
        if self.negative:
            object.__setattr__(self, "constant", False)

    @property
    def flag(self) -> str:
        """The option without the placeholder of its value."""
        return self.usage.partition(" ")[0]

    @property
    def negative(self) -> bool:
        """Whether the option switches something off: ``--no-...``."""
        return self.flag.startswith("--no-")

    @property
    def value(self) -> str:
        """The placeholder of its value; empty if it takes none."""
        return self.usage.partition(" ")[2]

    @property
    def full_help(self) -> str:
        """The help with the default."""
        return f"{self.help} [default: {self.default}]" if self.default else self.help

    def parse(self, text: str | None) -> Any:
        """Returns the value that a text on the command line means; None if there is no text.

        Raises `SpecError` that names the option, what was expected and the text.
        """
        if not self.value:
            if text is not None:
                raise SpecError(f"{self.flag} takes no value, got {text!r}")
            return self.constant
        if not text or not text.strip():
            raise SpecError(f"{self.flag} needs a value: {self.usage}")
        try:
            return self.read(text)
        except ValueError as error:
            raise SpecError(f"{self.flag}: expected {error}, got {text!r}") from error


def scalar(text: str) -> Any:
    """Returns the value that a text has in a TOML file, or the text itself if it is no TOML value.

    >>> scalar("20"), scalar("0.5"), scalar("false"), scalar("2/255"), scalar('"20"')
    (20, 0.5, False, '2/255', '20')
    """
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # of TOML, a number of too many digits, a deep nest
        return text
    value = read["value"]
    return value if len(read) == 1 and isinstance(value, bool | int | float | str | list) else text


def _path(text: str) -> Path:
    return expanded(text, SpecError)


def _store(text: str) -> Store:
    """Returns the store of a path or a URL; a path that is none is a wrong option."""
    return open_store(text if is_url(text) else _path(text))


def _whole(name: str = "", *, otherwise: str = "", positive: bool = False) -> Callable[[str], int]:
    """Returns a reader of whole numbers that are at least what a setting must be."""
    least = LEAST.get(name, int(positive))

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or int(text) < least:
            raise ValueError(f"{otherwise}a whole number greater than or equal to {least}")
        return int(text)

    return read


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _whole("batch_size", otherwise="auto or ")(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError("a positive number of seconds")
    return seconds


def _execution(text: str) -> str:
    if text not in get_args(ExecutorName):
        raise ValueError(f"one of {', '.join(get_args(ExecutorName))}")
    return text


def _gpus(text: str) -> float:
    try:
        gpus = float(text)
    except ValueError:
        gpus = math.nan
    if not 0 <= gpus < math.inf:
        raise ValueError("a number of GPUs")
    return gpus


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError("numbers with commas between them, such as 0.485,0.456,0.406") from None


def _bounds(text: str) -> list[float]:
    numbers = _numbers(text) if re.search(r"\d", text) else []
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError("the lowest and the highest value of all inputs, such as -3,3")
    return numbers


def _shape(text: str) -> list[int]:
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}(,0*[1-9][0-9]{0,17})*", text):
        raise ValueError("whole numbers with commas between them, such as 3,224,224")
    return list(map(int, text.split(",")))


def _probability(text: str) -> float:
    try:
        probability = float(text)
    except ValueError:
        probability = math.nan
    if not 0 <= probability < 1:
        raise ValueError("a probability from 0 to below 1")
    return probability


def _direction(text: str) -> str:
    if text not in get_args(Direction):
        raise ValueError(" or ".join(get_args(Direction)))
    return text


def _no_classes(text: str) -> str:
    if text != "none":
        raise ValueError("none")
    return text


def _size(text: str) -> int | list[int]:
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}(x0*[1-9][0-9]{0,17})?", text.lower()):
        raise ValueError("one side such as 224, or height and width such as 224x160")
    first, *second = map(int, text.lower().split("x"))
    return [first, *second] if second else first


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError("KEY=VALUE, such as depth=18")
    return key, scalar(value)


def _stand_in(text: str) -> tuple[str, str]:
    module, equals, function = text.partition("=")
    if not (module and equals and function):
        raise ValueError("MODULE=FUNCTION, such as quantiser=identity")
    return module, function


def _kept(text: str) -> str | int:
    return parse_keep_examples(text)


def _precision(text: str) -> str:
    if text not in get_args(Precision):
        raise ValueError(" or ".join(get_args(Precision)))
    return text


def _kinds(text: str) -> list[str]:
    try:
        return [flag_kind(text).name]
    except SpecError as error:
        raise SpecError(str(error), where="--accept") from error


def _budgets(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


_BY_MODELS = "as the models' own configuration says if images differ in size, else not at all"
_MODELS = (
    Option(
        "--model SOURCE",
        "Source of a model: a name of `list models`, path/to/net.py:build, package.module:Net, "
        "torchvision:resnet50, timm:NAME, robustbench:NAME, hf:ORG/NAME, a file (net.torchscript,"
        " net.pt2, net.onnx), or ensemble:A,B of such sources or of other models by name. Several"
        " models make a transfer matrix.",
    ),
    Option("--name NAME", "Name of the model in the tables.", "made from the source"),
    Option(
        "--weights FILE",
        "Weights file (safetensors, or a state dict saved by torch.save), or a word that the "
        "source knows, such as random.",
    ),
    Option(
        "--weights-key KEY",
        "Key of the state dict in the weights file, such as ema or state.model.",
        "that which fits the model",
    ),
    Option(
        "--weights-prefix PREFIX",
        "Prefix to strip from the names of tensors in the weights file, such as module.model.",
        "that which fits the model",
    ),
    Option(
        "--mean R,G,B", "Mean of the normalisation (x - mean) / std, per channel.", read=_numbers
    ),
    Option(
        "--std R,G,B", "Divisor of the normalisation (x - mean) / std, per channel.", read=_numbers
    ),
    Option(
        "--outputs KIND",
        "Meaning of the model's outputs: logits, probabilities or log-scores.",
        "what the source declares, else logits",
    ),
    Option(
        "--arg KEY=VALUE",
        "Keyword argument of the model's factory; may be repeated.",
        read=_pair,
        name="arguments",
        many=True,
    ),
    Option(
        "--fuse KIND",
        "Quantity that is averaged over an ensemble's members: probabilities, logits or loss.",
        "probabilities",
    ),
    Option(
        "--shares N[,N...]", "Weights of an ensemble's members, one number each.", "equal", _numbers
    ),
    Option(
        "--trust-code",
        "Allow loading a file that can run any code as you: an exported program (net.pt2), a "
        "pickle, TorchScript that accesses files. Trusted files only.",
    ),
    Option(
        "--trust-pickle",
        "Earlier name of --trust-code, which allows all that it allows: trusted files only.",
    ),
)
_DATASET = (
    Option(
        "--dataset SOURCE",
        "Source of the data: a name of `list datasets`, a folder of images (CLASS/image.png), a "
        "CSV file of paths and labels, an .npz or .npy file, torchvision:NAME, a factory such as "
        "path/to/data.py:load, or noise: rubbish:gaussian, rubbish:uniform.",
        name="source",
    ),
    Option("--split SPLIT", "Split of the dataset: test or train.", "test"),
    Option(
        "--class-map FILE",
        "JSON or CSV file of each class's index among the model's classes, or imagenet.",
    ),
    Option(
        "--class-order ORDER",
        "Order of the classes of a folder or CSV file: text (as torchvision's ImageFolder), "
        "numeric or index (names are positions among the model's classes).",
        "text if the names have no numbers that disagree with it",
    ),
    Option("--labels FILE", "An .npy file of labels, or the name of their array in an .npz file."),
    Option("--inputs NAME", "Name of the array of inputs in an .npz file."),
    Option("--layout AXES", "Order of the axes of an array: NCHW, NHWC or NHW."),
    Option(
        "--bounds LOW,HIGH",
        "Lowest and highest value of an input that is no picture, such as --bounds=-3,3, of arrays "
        "and factories.",
        "0,1",
        _bounds,
    ),
    Option("--resize N|HxW", "Resize images: the shorter side to N, or to HxW.", _BY_MODELS, _size),
    Option("--crop N|HxW", "Crop images from the centre, after resizing.", _BY_MODELS, _size),
    Option(
        "--interpolation KIND",
        "Interpolation for resizing images: nearest, bilinear, bicubic or lanczos.",
        "bilinear",
    ),
    Option("--colour KIND", "Convert images to grey or rgb."),
    Option("--skip-unreadable", "Leave out images that can't be read, and list them."),
    Option(
        "--classes KIND",
        "Classes of the inputs: none if they belong to no class, so that labels are not read.",
        read=_no_classes,
    ),
    Option(
        "--count N",
        "Number of draws of rubbish:gaussian or rubbish:uniform.",
        "10,000",
        _whole(positive=True),
    ),
    Option(
        "--shape N[,N...]",
        "Shape of one draw of rubbish:gaussian or rubbish:uniform, such as 3,224,224.",
        "that of the models' inputs",
        _shape,
    ),
    Option(
        "--dataset-arg KEY=VALUE",
        "Keyword argument of the dataset's factory; may be repeated.",
        read=_pair,
        name="arguments",
        many=True,
    ),
)
_ATTACKS = (
    Option(
        "--attack NAME",
        "Attack to run: a name of `list attacks`, path/to/mine.py:Mine or my_package.attacks:Mine. "
        "Several attacks are run one after the other. Without one, FGSM, PGD and a short worst "
        "case at the customary budget, on at most 1,000 examples.",
        name="name",
    ),
    Option(
        "--epsilon E[,E...]",
        "Perturbation budgets in units of the input, such as 8/255, 0.1 or 2/255,8/255.",
        "as the attack before, else as the attack after",
        _budgets,
        many=True,
    ),
    Option("--norm NORM", "Norm of the perturbation: linf, l2 or l1.", "the attack's first norm"),
    Option("--no-clip", "Let adversarial examples leave the bounds of the data."),
    Option(
        "--carried",
        "Count an example misclassified at a smaller epsilon as misclassified at every larger "
        "one, without attacking it again.",
    ),
    Option(
        "--eot N",
        "Draws of a random model's numbers that outputs and gradients are averaged over "
        "(expectation over transformations).",
        "1",
        _whole(positive=True),
    ),
    Option(
        "--backward MODULE=FUNCTION",
        "Another backward pass for a submodule: identity, or a function that stands in for it, "
        "such as path/to/file.py:function. May be repeated.",
        read=_stand_in,
        many=True,
    ),
    Option(
        "--before MODULE",
        "Attack the input of this submodule, such as a softmax, in place of the model's outputs.",
    ),
    Option("--label NAME", "Name of the attack in the tables.", "its own name"),
)
_RUN = (
    Option(
        "--output DIR",
        "Folder for the results, or its URL, such as s3://bucket/run.",
        "results/runs/DATASET-MODELS",
        _store,
    ),
    Option("--device DEVICE", "Device: auto, cpu, cuda, cuda:1 or mps.", "auto"),
    Option(
        "--batch-size auto|N",
        "Examples in one pass; auto estimates the number and halves it if memory runs out. Changes "
        "results by no more than rounding.",
        "auto",
        _batch_size,
    ),
    Option(
        "--precision KIND",
        "Number format that models compute in: float32 or bfloat16. The share of predictions that "
        "it changes is reported.",
        "float32",
        _precision,
    ),
    Option(
        "--channels-last",
        "Store pictures with the channels next to each other, which is faster on some devices.",
    ),
    Option(
        "--compile",
        "Compile models with torch.compile, for a few batch sizes, to which smaller batches are "
        "padded.",
    ),
    Option(
        "--models-in-memory N",
        "Models kept on the device at once.",
        "as many as fit",
        _whole("models_in_memory"),
    ),
    Option(
        "--decoders N",
        "Processes that decode images.",
        "from the number of processors",
        _whole("decoders"),
    ),
    Option(
        "--executor KIND",
        "Place where attacks are computed: in-process, processes (workers on this machine) or ray "
        "(workers on a Ray cluster; pip install 'gibbon-bench[ray]'). The answer is the same.",
        "processes with --workers, else in-process",
        _execution,
    ),
    Option(
        "--workers N",
        "Workers that examples are divided among, each with a GPU or a share of the cores.",
        "with an executor, one a GPU, else one a core",
        _whole("workers"),
    ),
    Option(
        "--address ADDRESS",
        "Address of the Ray cluster to join, or auto, with --executor ray.",
        "a Ray of its own on this machine",
    ),
    Option(
        "--gpus-per-worker G",
        "GPUs of each worker, with --executor ray, such as 1 or 0.5.",
        "1 on a GPU, else 0",
        _gpus,
    ),
    Option(
        "--limit N",
        "Evaluate a fixed sample of this many examples of each dataset.",
        read=_whole("limit"),
    ),
    Option("--fresh", "Discard recorded outcomes and compute everything again."),
    Option(
        "--repair",
        "Make run.json again from the outcomes in the folder, if it is damaged or missing.",
    ),
    Option(
        "--data-dir DIR",
        "Folder of datasets that are not embedded.",
        "GIBBON_DATA of the environment, else ~/.cache/gibbon",
        _path,
        name="data_folder",
    ),
    Option("--offline", "Never download a dataset.", name="download", constant=False),
    Option("--seed N", "Seed of every random number.", "0", _whole()),
    Option("--no-transfer", "Don't score models on each other's adversarial examples."),
    Option(
        "--error-only",
        "Measure errors only, which is faster: attacks stop at an example's first success. "
        "Confidence and transfer are left out.",
    ),
    Option(
        "--draws N",
        "Evaluations of each input by a model whose answers are random; its errors are mean shares "
        "of wrong answers.",
        "20",
        _whole(positive=True),
    ),
    Option(
        "--against SOURCE",
        "Source of a dataset with classes, whose inputs the confidences on inputs without a class "
        "are compared with (AUROC).",
    ),
    Option(
        "--threshold P",
        "Probability of the predicted class above which an input without a class is a false "
        "positive.",
        "0.5",
        _probability,
    ),
    Option(
        "--fooling STEP",
        "Size of one gradient step towards each class, from inputs without a class: measures how "
        "often the model then sees that class.",
    ),
    Option(
        "--fooling-direction KIND",
        "Direction of the step of fooling images: gradient of the class's probability, unit (that "
        "gradient divided by its L2 norm) or sign.",
        "sign",
        _direction,
    ),
    Option(
        "--certify KIND",
        "Certified bounds to compute: cheap (those that cost little next to the attacks), all or "
        "none.",
        "as the suite says, else cheap",
        formerly="--bounds",
    ),
    Option(
        "--keep-examples KIND|N",
        "Adversarial examples to keep in the folder, for gibbon view: all, misclassified, or a "
        "number of each cell.",
        "as the suite says, else none",
        _kept,
    ),
    Option(
        "--no-pictures",
        "Images of a few examples are stored for the report unless --no-pictures is given.",
    ),
    Option("--strict", "Fail if there is a serious flag that is not accepted: exit code 1."),
    Option(
        "--accept KIND",
        "Kinds of flags that you take responsibility for, such as zero-gradient: verdicts ignore "
        "them; may be repeated.",
        read=_kinds,
        many=True,
    ),
    Option(
        "--no-examination",
        "Models are examined before they are attacked unless --no-examination is given, which "
        "raises a flag.",
    ),
    Option(
        "--isolate",
        "Run each attack and each model in a process of its own, so that one that exits, crashes "
        "or never ends fails its own cell alone. On the CPU only.",
    ),
    Option(
        "--cell-timeout SECONDS",
        "Time that a cell may take, with --isolate.",
        "no limit",
        _seconds,
    ),
    Option(
        "--cell-memory SIZE",
        "Memory that the process of a cell may take, with --isolate, such as 4GB, in addition to "
        "what it shares with the run.",
        "no limit",
        parse_bytes,
    ),
    Option("--save-suite FILE", "Write the request to a suite file, for `run FILE`.", read=_path),
)

# What --help says of each group of options, and the options.
GROUPS: dict[OptionGroup, tuple[str, tuple[Option, ...]]] = {
    "Models": (
        "Options after a --model describe that model; options before the first, all models.",
        _MODELS,
    ),
    "Dataset": (
        "Resizing and cropping belong to the dataset, normalisation to the models.",
        _DATASET,
    ),
    "Attacks": (
        "Options after an --attack describe that attack; options before the first, all attacks. "
        "An option that is not listed here is a parameter of the attack, such as --steps 20.",
        _ATTACKS,
    ),
    "Run": (
        "How the evaluation is carried out. Of these only --limit, --precision, --seed, --draws, "
        "--error-only, and those about inputs without a class, change a result.",
        _RUN,
    ),
}
OPTIONS = tuple(option for _, options in GROUPS.values() for option in options)
BY_FLAG = {option.flag: option for option in OPTIONS}
GROUP_OF = {option.flag: group for group, (_, options) in GROUPS.items() for option in options}
KEY_FLAGS = {(GROUP_OF[option.flag], option.name): option.flag for option in OPTIONS}
_SETTINGS = {each.name for each in fields(RunSettings)}
RUN_OPTIONS = tuple(option for option in OPTIONS if option.name in _SETTINGS)
# Of a merge the results are those of its shards: the others only say how models are run here.
_OF_MERGE = (
    *("device", "batch_size", "models_in_memory", "decoders", "data_folder", "download"),
    *("isolate", "cell_timeout", "cell_memory", "pictures", "repair"),
)
MERGE_OPTIONS = tuple(option for option in RUN_OPTIONS if option.name in _OF_MERGE)
RENAMED = {option.formerly: option.flag for option in RUN_OPTIONS if option.formerly}
VERDICT_OPTIONS = (BY_FLAG["--strict"], BY_FLAG["--accept"])


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise ValueError("KEY=VALUE, such as optimiser.momentum=0.9")
    return key, scalar(value)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError("a positive number")
    return number


# Options of `train` for a model of the user's; ``name`` is the recipe's field that one sets.
OF_OWN_MODEL = (
    Option(
        "--model SOURCE",
        "Your own model: path/to/net.py:build, package.module:Net, torchvision:NAME, timm:NAME, "
        "hf:ORG/NAME or a name of `list models`.",
    ),
    *(
        option
        for option in _MODELS
        if option.flag not in ("--model", "--fuse", "--shares", "--trust-pickle")
    ),
)
OF_OWN_DATA = tuple(option for option in _DATASET if option.flag != "--split")
OF_OWN_RECIPE = (
    Option(
        "--validation SOURCE",
        "Examples that decide which epoch was best, with the options of --dataset. A registered "
        "name is its test split.",
        "a tenth of the training examples, held out",
    ),
    Option(
        "--objective NAME",
        "Objective: pgd (Madry et al. 2018), trades (Zhang et al. 2019), fgsm (with a random "
        "start, Wong et al. 2020), free (Shafahi et al. 2019) or standard.",
        name="objective.name",
    ),
    Option("--epsilon E", "Budget in units of the input, such as 8/255.", name="objective.epsilon"),
    Option("--norm NORM", "Norm of the budget: linf or l2.", "linf", name="objective.norm"),
    Option(
        "--steps N",
        "Gradient steps of pgd and trades.",
        "10",
        _whole(positive=True),
        name="objective.steps",
    ),
    Option(
        "--step-size E",
        "Length of each step.",
        "1.25 epsilon for fgsm, 2.5 epsilon / steps for pgd and trades",
        name="objective.step_size",
    ),
    Option("--beta N", "Weight of trades' divergence.", "6", _positive, name="objective.beta"),
    Option(
        "--replays N",
        "Steps of free on each batch, in succession.",
        "8",
        _whole(positive=True),
        name="objective.replays",
    ),
    Option("--batch-size N", "Examples a step.", "128", _whole(positive=True)),
    Option(
        "--optimiser NAME", "Optimiser: adam or sgd.", "adam, falling to 0", name="optimiser.name"
    ),
    Option(
        "--learning-rate RATE",
        "Learning rate at the first step.",
        "0.001 for adam, 0.05 for sgd",
        _positive,
        name="optimiser.learning_rate",
    ),
    Option(
        "--patience N",
        "Epochs without a lower validation error after which training ends.",
        "10",
        _whole(positive=True),
        name="stopping.patience",
    ),
    Option(
        "--no-stopping",
        "Some examples are held out and the best epoch is kept unless --no-stopping is given.",
        name="stopping",
    ),
    Option("--flip", "Mirror half of the pictures at random.", name="augmentation.flip"),
    Option(
        "--shift N",
        "Move pictures at random by up to so many pixels.",
        read=_whole(positive=True),
        name="augmentation.shift",
    ),
    Option(
        "--set KEY=VALUE",
        "Any field of the recipe, such as optimiser.weight_decay=0.0005; may be repeated.",
        read=_setting,
        many=True,
    ),
)
OF_OWN = (*OF_OWN_MODEL, *OF_OWN_DATA, *OF_OWN_RECIPE)

EXAMPLES = """\
The customary attacks on your own network and images:
    evaluate --model net.py:build --weights w.pt --dataset photos/
A model that comes with the package:
    evaluate --model maxout --dataset mnist --attack fgsm --epsilon 0.1,0.25
Your own network and images, two attacks:
    evaluate --model nets/small.py:build --weights small.safetensors \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\
        --dataset photos/val --resize 256 --crop 224 \\
        --attack fgsm --epsilon 8/255 --attack pgd --steps 20
Transfer between two models, saved as a suite:
    evaluate --model torchvision:resnet50 --model timm:vit_small_patch16_224 \\
        --dataset photos/val --class-map imagenet --attack pgd --epsilon 4/255 \\
        --save-suite suites/transfer.toml
Inputs that belong to no class, compared with some that do:
    evaluate --model maxout --dataset rubbish:gaussian --against mnist"""
MERGE_EXAMPLES = """\
Four shards, computed anywhere, and their merge:
    run suites/large.toml --shard 1/4 --output shards/1
    ...
    merge shards/1 shards/2 shards/3 shards/4 --output results/runs/large"""
REQUIRED = ("--model", "--dataset", "--attack")


def run_settings(given: Mapping[str, Any], *, data_folder: Path | None = None) -> RunSettings:
    """Returns the run settings among the values of options, by name; other values are ignored.

    ``data_folder`` holds datasets unless it is among them.  The command line stores images of
    examples unless `--no-pictures` is given.
    """
    defaults: dict[str, Any] = {"pictures": True}
    defaults |= {"data_folder": data_folder} if data_folder else {}
    return RunSettings(**{**defaults, **{key: given[key] for key in given if key in _SETTINGS}})
