"""Makes a classifier from a module: adds normalisation, counts classes, explains faults.

A caller's module is never changed: normalisation is added by a module around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gibbon.core.endings import ends_the_process
from gibbon.core.errors import TOKENS, DatasetError, ModelError, RequestError, suggest
from gibbon.core.fixed_inputs import FIXED_INPUTS
from gibbon.core.global_state import GlobalState
from gibbon.core.plain_tensors import plain
from gibbon.core.plain_text import message_of
from gibbon.core.rng import seeded_globals
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.models.classifier import MANY_DIGITS, PIXELS, Classifier
from gibbon.models.first_answers import FirstAnswers
from gibbon.models.memory import tensors_of
from gibbon.models.model_state import ModelState
from gibbon.models.outputs import (
    LOG_SCORES,
    LOGITS,
    PROBABILITIES,
    OutputRule,
    look_like_probabilities,
)
from gibbon.models.reached_values import ReachedValues, in_use, restoring_values
from gibbon.models.shielding import needs_gradients
from gibbon.models.sources import BuiltModel, OpenedModel, Preprocessing, Size
from gibbon.models.sources.class_names import names_in
from gibbon.models.sources.error_text import gist, many
from gibbon.models.sources.exported_module import Program, is_program
from gibbon.models.sources.torchscript_module import Script
from gibbon.specs.suite import ModelSpec

RULES: dict[str, OutputRule] = {rule.name: rule for rule in (LOGITS, PROBABILITIES, LOG_SCORES)}
TRIED = 2  # examples in the trial batch that gives the number of classes
SEED = 0  # of a model's initial random numbers
CHANNELS_IN_ERROR = re.compile(r"to have (\d+) channels, but got")  # by torch's convolutions

MORE_INPUTS = re.compile(r"missing \d+ required positional arguments?: (.*)")

# By the channels of a model and of the images: the images' colour, and how to convert them.
COLOUR_CURES = {
    (3, 1): ("grey", "rgb", "inputs.expand(-1, 3, -1, -1)"),
    (1, 3): ("in colour", "grey", "inputs.mean(1, keepdim=True)"),
}
# Names of the axes of an input after its channels, by their number.
AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}
PICTURE_AXES = 2


class Normalised(nn.Module):
    """Passes (x - mean) / std to a network, for inputs x in [0, 1].

    Args:
        network: takes normalised inputs.
        mean, std: a number a channel, the first axis of an input.
        axes: number of axes of one input, such as 3 for pictures.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], axes: int
    ) -> None:
        super().__init__()
        shape = (len(mean), *(1,) * (axes - 1))
        self.register_buffer("mean", torch.tensor(mean).view(shape))
        self.register_buffer("std", torch.tensor(std).view(shape))
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the network's outputs for inputs of shape (N, C, ...)."""
        outputs: Tensor = self.network((inputs - self.mean) / self.std)
        return outputs


class ConvertedInput(nn.Module):
    """Converts inputs to the dtype of a network's parameters.

    Args:
        network: takes inputs of this dtype.
        dtype: the dtype.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.training = network.training

    def forward(self, inputs: Tensor) -> object:
        """Returns the network's outputs for inputs of any floating-point dtype."""
        return self.network(inputs.to(self.dtype))


def adopt_model(
    model: nn.Module | Classifier,
    *,
    spec: ModelSpec,
    input_shape: tuple[int, ...],
    bounds: Bounds = PIXEL_BOUNDS,
) -> BuiltModel:
    """Returns a classifier of a caller's module, which is not changed.

    Of the spec, ``mean``, ``std`` and ``outputs`` are used.

    Raises `ModelError` if it is not a module, does not take inputs of that shape, or does not
    return one number for each class.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> adopt_model(net, spec=ModelSpec(name="net", model="net"), input_shape=(1, 2, 2)).classifier
    ... # doctest: +ELLIPSIS
    Classifier(...classes=3, input_shape=(1, 2, 2), ...)
    """
    held: object = model
    if not isinstance(held, nn.Module | Classifier):
        cure = ": wrap it in a torch.nn.Module whose forward calls it" if callable(held) else ""
        raise ModelError(
            f"expected a torch.nn.Module or a gibbon.models.classifier.Classifier, got "
            f"{type(held).__name__}{cure}"
        )
    for key in ("weights", "arguments"):
        if getattr(spec, key):
            raise ModelError(f"{key} are for a model that is yet to be made: this one is there")
    return complete(
        OpenedModel(module=model, identity=""),
        spec=spec,
        input_shape=input_shape,
        bounds=bounds,
        own=False,
    )


def complete(
    found: OpenedModel,
    *,
    spec: ModelSpec,
    input_shape: tuple[int, ...],
    bounds: Bounds = PIXEL_BOUNDS,
    own: bool = True,
    prepared: Callable[[], Preprocessing | None] = lambda: None,
) -> BuiltModel:
    """Returns the classifier of a loaded model.

    Args:
        found: the loaded model.
        spec: its spec.
        input_shape: shape of one input.
        bounds: lowest and highest value of an input.
        own: whether the module was built here, so that it can be built again.
        prepared: returns the image transforms of the source's configuration, for messages.

    Raises `ModelError`.
    """
    if isinstance(found.module, Classifier):
        _check_says_all(found.module, spec)
        names = found.class_names or names_in(found.module.module)
        return BuiltModel(
            found.module, found.identity, found.notes, rebuilds=own, class_names=names
        )
    mean, std = (spec.mean, spec.std) if spec.mean is not None else (found.mean, found.std)
    module = _plain(found.module, own=own)
    notes = list(found.notes)
    names = found.class_names or names_in(found.module)
    with _advice(module, input_shape, prepared, own=own):
        _check_tensors(module)
        dtype = _other_dtype(module)
        if dtype is not None:
            module = ConvertedInput(module, dtype)
            notes.append(f"its parameters are {dtype}: inputs are converted to that")
        if mean is not None and std is not None:
            if spec.mean is not None:
                _check_scale(mean, std, bounds)
            _check_channels(mean, input_shape, declared=spec.mean is not None, own=own)
            module = Normalised(module, mean=mean, std=std, axes=len(input_shape))
            if spec.mean is None:
                notes.append(
                    f"inputs are normalised as its configuration says: mean {_row(mean)}, "
                    f"std {_row(std)}"
                )
        first = _try(module, input_shape, bounds)
        outputs = first.outputs
    size_note = _size_note(input_shape, prepared())
    if size_note:
        notes.append(f"{size_note}; its inputs here are {'x'.join(map(str, input_shape[1:]))}")
    rule = RULES[spec.outputs or LOGITS.name]
    if spec.outputs is None and outputs.shape[1] > 1 and look_like_probabilities(outputs):
        notes.append(
            "its outputs look like probabilities but are taken for logits, as nothing else is "
            'declared: if they are, declare outputs = "probabilities"'
        )
    classifier = Classifier(
        module,
        classes=outputs.shape[1],
        input_shape=tuple(input_shape),
        outputs=rule,
        bounds=bounds,
        forward_only=found.forward_only,
    )
    if len(names) != classifier.classes:
        names = ()  # of another output, or of another dataset
    return BuiltModel(
        classifier, found.identity, tuple(notes), rebuilds=own, class_names=names, first=first
    )


@contextmanager
def same_random_numbers(device: torch.device | None = None, *, seed: int = SEED) -> Iterator[None]:
    """Seeds random number generators, for a ``with`` block, and restores them afterwards.

    They are those of the CPU, of torch's current CUDA device and of ``device``.
    """
    devices = [] if device is None else [device]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda", torch.cuda.current_device()))
    with seeded_globals(seed, *devices):
        yield


def _plain(module: nn.Module, *, own: bool) -> nn.Module:
    """Wraps TorchScript and exported modules, so that mode, hooks and parameters can be set."""
    if isinstance(module, torch.jit.ScriptModule):
        return Script.around(module, own=own)
    return Program.around(module, own=own) if is_program(module) else module


def _check_says_all(classifier: Classifier, spec: ModelSpec) -> None:
    if spec.mean is not None:
        raise ModelError(
            "mean and std are declared, but this model takes pixels in "
            f"[{classifier.bounds.low:g}, {classifier.bounds.high:g}] and contains its own "
            "normalisation: leave them out"
        )
    if spec.outputs is not None and spec.outputs != classifier.outputs.name:
        raise ModelError(
            f"outputs {spec.outputs!r} are declared, but this model declares "
            f"{classifier.outputs.name!r}: leave it out"
        )


def _check_tensors(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"its {name!r} has no shape yet (a lazy layer): run the model once on a batch first"
            )
        if tensor.is_meta:
            raise ModelError(f"its {name!r} is on the meta device, without values")
        if tensor.is_inference():
            raise ModelError(
                f"its {name!r} was made inside of torch.inference_mode(), so that no gradient and "
                "no change of it can be followed: build the model and load its weights outside, or "
                "copy it outside with copy.deepcopy(model)"
            )


def _other_dtype(module: nn.Module) -> torch.dtype | None:
    """Returns the dtype of all floating-point parameters if it is not float32; None else."""
    kinds = {each.dtype for each in module.parameters() if each.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 and torch.float32 not in kinds else None


def _check_scale(mean: tuple[float, ...], std: tuple[float, ...], bounds: Bounds) -> None:
    if bounds != PIXEL_BOUNDS:
        return  # a normalisation of a table may be of any scale
    if not all(PIXELS.low <= each <= PIXELS.high for each in mean) or max(std) > PIXELS.width:
        raise ModelError(
            "mean and std are of pixels in [0, 1]: divide by 255; got mean "
            f"{_row(mean)}, std {_row(std)}; for inputs that are no pictures declare their bounds"
        )


def _check_channels(
    mean: tuple[float, ...], input_shape: tuple[int, ...], *, declared: bool, own: bool
) -> None:
    channels = input_shape[0]
    if len(mean) == channels:
        return
    if declared:
        raise ModelError(
            f"mean and std have {many(len(mean), 'number')}, the inputs have "
            f"{many(channels, 'channel')}: give a number a channel"
            + _colour_cure(len(mean), channels, own=own)
        )
    raise _other_channels(len(mean), channels, own=own)


def _other_channels(taken: int, given: int, *, own: bool) -> ModelError:
    cure = _colour_cure(taken, given, own=own)
    return ModelError(f"it takes {many(taken, 'channel')}, the inputs have {given}{cure}")


@contextmanager
def _advice(
    module: nn.Module,
    input_shape: tuple[int, ...],
    prepared: Callable[[], Preprocessing | None],
    *,
    own: bool,
) -> Iterator[None]:
    """Turns errors of a forward pass into a `ModelError` with a remedy, for a ``with`` block."""
    try:
        yield
    except RequestError:
        raise
    except BaseException as error:  # an exit of the model would end everything in silence
        if ends_the_process(error):
            raise
        axes = _axes_advice(module, input_shape)
        if axes:
            raise DatasetError(axes) from error
        found = CHANNELS_IN_ERROR.search(message_of(error))
        taken = int(found[1]) if found else _channels_of(module)
        if taken is not None and len(input_shape) == 3 and taken != input_shape[0]:
            raise _other_channels(taken, input_shape[0], own=own) from error
        raise ModelError(
            f"it can't be run on inputs of shape {tuple(input_shape)}: "
            f"{type(error).__name__}: {gist(error)}{_cure(module, input_shape, prepared(), error)}"
        ) from error


def _axes_advice(module: nn.Module, input_shape: tuple[int, ...]) -> str:
    """Returns the fault in the axes of data for a model of convolutions; empty if there is none."""
    first = _first_convolution(module)
    if first is None or has_embedding(module):
        return ""
    taken, axes = first.in_channels, len(first.kernel_size)
    form = f"the model takes (channels, {AXES[axes]})"
    if len(input_shape) == axes:
        return (
            f"inputs of shape {tuple(input_shape)} have no channel axis, and {form} with "
            f"{many(taken, 'channel')}: add a channel axis: inputs[:, None]"
            + (f".expand(-1, {taken}{', -1' * axes})" if taken > 1 else "")
        )
    if len(input_shape) == axes + 1 and input_shape[-1] == taken != input_shape[0]:
        order = ", ".join(map(str, (0, axes + 1, *range(1, axes + 1))))
        layout = ", or declare the layout NHWC of arrays in files" if axes == PICTURE_AXES else ""
        return (
            f"inputs of shape {tuple(input_shape)} have their channels last, and {form}: put them "
            f"first: inputs.permute({order}){layout}"
        )
    return ""


def _first_convolution(module: nn.Module) -> nn.Conv1d | nn.Conv2d | nn.Conv3d | None:
    kinds = nn.Conv1d, nn.Conv2d, nn.Conv3d
    return next((each for each in module.modules() if isinstance(each, kinds)), None)


def has_embedding(module: nn.Module) -> bool:
    """Returns whether a module takes token ids in one of its parts."""
    return any(isinstance(each, nn.Embedding | nn.EmbeddingBag) for each in module.modules())


def _channels_of(module: nn.Module) -> int | None:
    taken = (each.in_channels for each in module.modules() if isinstance(each, nn.Conv2d))
    return next(taken, None)


def _colour_cure(taken: int, given: int, *, own: bool) -> str:
    """Returns a sentence on how to convert images to a model's channels.

    A model that is not ``own`` came through the Python call, which has no command-line options.
    """
    if (taken, given) not in COLOUR_CURES:
        return ""
    are, colour, of_tensors = COLOUR_CURES[taken, given]
    if own:
        return (
            f". The pictures are {are}: convert them with --colour {colour} "
            f'(colour = "{colour}"), or tensors with {of_tensors}'
        )
    return (
        f". The pictures are {are}: convert tensors with {of_tensors}, or pictures in files with "
        f'DatasetSpec(..., colour="{colour}")'
    )


def _cure(
    module: nn.Module,
    input_shape: tuple[int, ...],
    prepared: Preprocessing | None,
    error: BaseException,
) -> str:
    kinds = {each.dtype for each in module.parameters() if each.is_floating_point()}
    if kinds and torch.float32 not in kinds:
        return f". Its parameters are {kinds.pop()}: convert it with .float()"
    more = MORE_INPUTS.search(message_of(error)) if isinstance(error, TypeError) else None
    if more is not None:
        return (
            f". It takes more than one input ({more[1]}): wrap it in a module whose "
            "forward(inputs) calls it with the others fixed, the same for all examples, such as\n"
            f"{FIXED_INPUTS}"
        )
    if "indices" in message_of(error) and has_embedding(module):
        return f": {TOKENS}"
    note = _size_note(input_shape, prepared)
    return f". {note[0].upper()}{note[1:]}" if note else ""


def _size_note(input_shape: tuple[int, ...], prepared: Preprocessing | None) -> str:
    size = (prepared.crop or prepared.resize) if prepared is not None else None
    if prepared is None or size is None or _pair(size) == input_shape[1:]:
        return ""
    options = [
        f"--{name} {'x'.join(map(str, _pair(size))) if isinstance(size, tuple) else size}"
        for name, size in (("resize", prepared.resize), ("crop", prepared.crop))
        if size is not None
    ]
    return f"its configuration prepares pictures with {' '.join(options)}"


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _try(module: nn.Module, input_shape: tuple[int, ...], bounds: Bounds) -> FirstAnswers:
    """Returns the outputs for two inputs near zero, shape (2, K); restores the module."""
    home = next((each.device for each in tensors_of(module)), None)
    zero = min(max(bounds.low, 0.0), bounds.high)
    zeros = torch.full((TRIED, *input_shape), zero, device=home)
    kept, state = ModelState(module), GlobalState.now()
    reached = in_use(ReachedValues([module]))
    given = zeros.clone()
    try:
        with restoring_values(reached), same_random_numbers(), torch.no_grad():
            module.eval()
            outputs = _call(module, zeros)
    finally:
        state.put_back()
        kept.restore()
    if not issubclass(type(outputs), Tensor):
        raise ModelError(_no_tensor(outputs))
    outputs = plain(outputs, what="its output", problem=ModelError)
    if outputs.ndim != 2 or len(outputs) != TRIED:
        raise ModelError(
            f"it must return one row of outputs an example, shape (N, classes): {TRIED} inputs "
            f"gave shape {tuple(outputs.shape)}"
        )
    if outputs.shape[1] < 2:
        raise ModelError(
            "it returns one number an example, expected one a class: for two classes, return the "
            "logits of both, such as torch.cat([torch.zeros_like(z), z], dim=1)"
        )
    if not outputs.is_floating_point():
        cure = "real numbers, such as outputs.abs()" if outputs.is_complex() else "the logits"
        cure += "" if outputs.is_complex() else ", not the predicted class"
        raise ModelError(
            f"it must return floating-point numbers, got {outputs.dtype}: return {cure}"
        )
    plainly = outputs if outputs.dtype in MANY_DIGITS else outputs.float()
    return FirstAnswers(given, plainly.detach().clone())


def _call(module: nn.Module, inputs: Tensor) -> object:
    """Returns the outputs for inputs, with gradients recorded inside if the module needs them."""
    try:
        outputs: object = module(inputs)
    except RuntimeError as error:
        if not needs_gradients(error):
            raise
        with torch.enable_grad():
            outputs = module(inputs)
    return outputs


def _no_tensor(outputs: object) -> str:
    message = f"it must return a tensor of logits, got {type(outputs).__name__}"
    if isinstance(outputs, dict):
        keys = ", ".join(map(repr, list(outputs)[:10]))
        near = suggest("logits", map(str, outputs)).removeprefix("; did you mean ").rstrip("?.")
        return f"{message} with the keys {keys}: return the logits alone" + (
            f", such as outputs[{near}]" if near else ""
        )
    if isinstance(outputs, tuple | list):
        return f"{message} of {len(outputs)}: return the logits alone, such as outputs[0]"
    return f"{message}: return the logits alone"


def _row(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{each:.4g}" for each in numbers)
