"""The Python call: models, data and attacks in, typed results out.

`evaluate` makes a suite of its arguments and runs it as the command line does, with the same
checks, numbers and tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

import torch
from rich.console import Console

from gibbon.api.request import (
    AttackLike,
    Budget,
    Data,
    Model,
    NoClassArguments,
    PythonRequest,
    attack_list,
    model_name,
    parse_budgets,
)
from gibbon.api.results import Results
from gibbon.api.run_files import RunFiles
from gibbon.core.errors import FlagError, SpecError
from gibbon.core.files import StrPath, files_of_this_process
from gibbon.core.global_state import calculating
from gibbon.core.threat import Norm
from gibbon.gate.flag_text import serious_flags_text
from gibbon.models.reached_values import watching_values
from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.records.stores import open_store
from gibbon.report import write_report
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.plan.preprocessing import with_preprocessing
from gibbon.runner.run_progress.callers_progress import CallersProgress
from gibbon.runner.run_progress.notebook_progress import NotebookProgress, in_notebook
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.run_progress.progress_bar import RunProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import Bounding, Precision, RunSettings
from gibbon.specs.decoding import WHERE
from gibbon.specs.keep_examples import KeepExamples
from gibbon.specs.memory_sizes import parse_bytes


@watching_values()
@calculating()
def evaluate(
    model: Model | Mapping[str, Model],
    data: Data,
    *,
    attack: AttackLike | Sequence[AttackLike] | None = None,
    epsilon: Budget | Sequence[Budget] | None = None,
    norm: Norm | Literal["linf", "l2", "l1"] | None = None,
    clip: bool = True,
    eot: int | None = None,
    backward: Mapping[str, str] | None = None,
    before: str | None = None,
    transfer: bool = True,
    error_only: bool = False,
    draws: int | None = None,
    classes: Literal["none"] | None = None,
    count: int | None = None,
    shape: Sequence[int] | None = None,
    against: Data | None = None,
    threshold: float = 0.5,
    fooling: Budget | None = None,
    fooling_direction: Literal["gradient", "unit", "sign"] = "sign",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Literal["logits", "probabilities", "log-scores"] | None = None,
    trust_code: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    channels_last: bool = False,
    compile: bool = False,  # noqa: A002  # the name that it has everywhere else
    limit: int | None = None,
    bounds: tuple[float, float] | str | None = None,
    certify: Bounding | None = None,
    examination: bool = True,
    keep_examples: KeepExamples | None = None,
    isolate: bool = False,
    cell_timeout: float | None = None,
    cell_memory: int | str | None = None,
    output: StrPath | None = None,
    strict: bool = False,
    accept: Sequence[str] | None = None,
    pictures: bool | None = None,
    progress: Progress | bool | None = None,
    **parameters: Any,
) -> Results:
    """Evaluates models on data, unattacked and under attacks, and returns the results.

    Args:
        model: a torch module, a `Classifier`, a source such as ``"torchvision:resnet50"`` or a
            path, a `ModelSpec`, or a mapping of names to these, in which ``"ensemble:one,two"`` is
            made of the models of these names.  A module takes inputs of shape (N, *input_shape) in
            the bounds of the data.
        data: a torch ``Dataset`` of (input, label), a ``DataLoader`` of batches of these, a pair
            of tensors (inputs, labels), a `Dataset` of Gibbon, a `DatasetSpec`, or a source such as
            ``"mnist"``, a folder of images or ``"rubbish:gaussian"``; inputs without a class may be
            a tensor alone.
        attack: an attack's name, a mapping such as ``{"name": "pgd", "steps": 20}``, an `Attack`,
            an `AttackSpec`, or a list of these; None for inputs without a class.
        epsilon: perturbation budgets in units of the input, such as ``8 / 255``, ``"8/255"`` or
            ``[0.1, 0.25]``, for every attack whose mapping gives none.
        norm: norm of the perturbation: ``linf``, ``l2`` or ``l1``; the attack's first norm if None.
        clip: whether adversarial examples stay in the bounds of the data.
        eot: draws of a random model's numbers that outputs and gradients are averaged over
            (expectation over transformations), for every attack whose mapping gives none.
        backward: another backward pass for a submodule: a mapping of its path to ``"identity"``,
            or to a function that stands in for it, ``"path/to/file.py:function"``.
        before: attack the input of this submodule, such as a softmax, in place of the model's
            outputs.
        transfer: whether to score models on each other's adversarial examples.
        error_only: measure errors only, which is faster: attacks stop at an example's first
            success.  Confidence and transfer are left out.
        draws: evaluations of each input by a model whose answers are random; its errors are mean
            shares of wrong answers.  20 if None.
        classes: classes of the inputs: ``none`` if they belong to no class, so that labels are not
            read.
        count: number of draws of ``rubbish:gaussian`` or ``rubbish:uniform``.  10,000 if None.
        shape: shape of one draw of ``rubbish:gaussian`` or ``rubbish:uniform``, such as
            ``(3, 224, 224)``.  That of ``against``, or of the inputs that the model declares, if
            None.
        against: source of a dataset with classes, or the data themselves in any form of ``data``,
            whose inputs the confidences on inputs without a class are compared with (AUROC).
        threshold: probability of the predicted class above which an input without a class is a
            false positive.
        fooling: size of one gradient step towards each class, from inputs without a class: measures
            how often the model then sees that class.
        fooling_direction: direction of the step of fooling images: ``gradient`` of the class's
            probability, ``unit`` (that gradient divided by its L2 norm) or ``sign``.
        mean: mean of the normalisation (x - mean) / std, per channel, which is put in front of
            every model.
        std: divisor of the normalisation (x - mean) / std, per channel.
        outputs: meaning of the model's outputs: ``logits``, ``probabilities`` or ``log-scores``;
            what the source declares if None, else logits.
        trust_code: allow loading a file that can run any code as you: an exported program
            (``net.pt2``), a pickle, TorchScript that accesses files.  Trusted files only.
        seed: seed of every random number.
        device: device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; or a torch device.
        batch_size: examples in one pass; ``auto`` estimates the number and halves it if memory runs
            out.  Changes results by no more than rounding.
        precision: number format that models compute in: ``float32`` or ``bfloat16``. The share of
            predictions that it changes is reported.
        channels_last: store pictures with the channels next to each other, which is faster on some
            devices.
        compile: compile models with ``torch.compile``, for a few batch sizes, to which smaller
            batches are padded.
        limit: evaluate a fixed sample of this many examples of each dataset.
        bounds: lowest and highest value of an input that is no picture, such as ``(-3, 3)`` for a
            table of z-scores or ``(-1, 1)`` for waveforms; epsilon is in the same units.  [0, 1],
            as for images, if None.  (A word is the earlier form of ``certify``.)
        certify: certified bounds to compute: ``cheap`` (those that cost little next to the
            attacks), ``all`` or ``none``.  The cheap ones if None.
        examination: whether to examine each model before it is attacked, on a few examples, which
            takes at most a tenth of the passes; without it a flag is raised.
        keep_examples: adversarial examples to keep in the folder, for ``gibbon view``: ``all``,
            ``misclassified``, or a number of each cell.  None are kept if None.
        isolate: run each attack and each model in a process of its own, so that one that exits,
            crashes or never ends fails its own cell alone.  On the CPU only.
        cell_timeout: time that a cell may take, in seconds, with ``isolate``.
        cell_memory: memory that the process of a cell may take, in addition to what it shares with
            this one, with ``isolate``: a number of bytes, or a text such as ``"4GB"``.
        output: folder for the results, or its URL, such as ``s3://bucket/run``.  A call that is
            interrupted continues from there.  A temporary folder if None.
        strict: fail if there is a serious flag that is not accepted: raise a `FlagError` once
            everything is computed and stored.  The results are its ``results``.
        accept: kinds of flags that you take responsibility for, such as ``["zero-gradient"]``:
            verdicts ignore these flags, but they are in the results and the tables.
        pictures: whether to keep a few examples of each attack as pictures, for reports.  In a
            notebook if None.
        progress: whether to show progress, in a notebook by ``tqdm.auto`` and else on stderr, or an
            object that is notified of it.  In a notebook if None.
        **parameters: the attack's own parameters, such as ``steps=20``, if there is one attack.

    The model comes back as it was, also after an exception: mode, ``requires_grad``, device, hooks.
    Adversarial examples themselves are stored only with ``keep_examples``, the outcome of each
    always (`Results.examples`).
    An attack or a model that raises while it is measured makes a failed cell, listed in
    `Results.failures` and in the tables; its numbers raise `CellError`.

    Inputs without a class have neither errors nor attacks: their results are `Results.no_class`.

    Signs that a number may be wrong are in `Results.flags`; those that count, serious and not
    accepted, in `Results.serious_flags`.

    Raises a `RequestError` if the request is wrong, before anything is computed, and a `FlagError`
    after everything is computed if ``strict`` is set and there is a serious flag.

    >>> from torch import nn
    >>> inputs, labels = torch.rand(40, 1, 4, 4), torch.arange(40) % 3
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> results = evaluate(net, (inputs, labels), attack="pgd", epsilon=8 / 255, steps=4)
    >>> results.adversarial_error >= results.clean_error
    True
    >>> results.to_frame()[["attack", "epsilon", "examples"]].to_dict("list")
    {'attack': ['none', 'pgd'], 'epsilon': ['0', '8/255'], 'examples': [40, 40]}
    """
    if isinstance(bounds, str) and bounds not in get_args(Bounding):  # as on the command line
        bounds = cast("tuple[float, float]", tuple(bounds.split(",")))  # checked by `in_bounds`
    elif isinstance(bounds, str):
        if certify is not None:
            raise SpecError("certify and bounds, its earlier name, are both given", where="bounds")
        bounds, certify = None, cast("Bounding", bounds)  # checked by `RunSettings`
    question = NoClassArguments(
        classes, count, against, threshold, fooling, fooling_direction, shape
    )
    if attack is None:
        question.check_no_attack(data)
        attack = ()
    request = PythonRequest.of(
        model if isinstance(model, Mapping) else {model_name(model): model},
        os.fspath(data) if isinstance(data, os.PathLike) else data,
        attack_list(attack),
        epsilon=parse_budgets(epsilon),
        threat={"norm": norm, "clip": clip, "eot": eot, "backward": backward, "before": before},
        parameters=parameters,
        declared={"mean": mean, "std": std, "outputs": outputs, "trust_code": trust_code or None},
        experiment={"seed": seed, "error_only": error_only, "draws": draws},
        accept=() if accept is None else accept,
        transfer=transfer,
        bounds=bounds,
        question=question,
    )
    settings = RunSettings(
        device=str(device),
        batch_size=None if batch_size == "auto" else batch_size,
        precision=precision,
        channels_last=channels_last,
        compile=compile,
        limit=limit,
        certify=certify,
        examination=examination,
        keep_examples=keep_examples,
        pictures=in_notebook() if pictures is None else pictures,
        isolate=isolate,
        cell_timeout=cell_timeout,
        cell_memory=_bytes(cell_memory),
    )
    choose_device(settings.device, where="device")
    if output is not None and not os.fspath(output).strip():
        raise SpecError(f"must be the path of a folder, got {output!r}", where="output")
    if keep_examples and output is None:
        raise SpecError("needs output, the folder to keep them in", where="keep_examples")
    suite, supplied = request.suite, request.supplied(settings)
    store = open_store(output) if output is not None else None
    with _reporter(progress) as reporter, ExitStack() as stack:
        place = _temporary_folder() if store is None else store.writing(reporter.note)
        folder = stack.enter_context(place)
        if not supplied.datasets:
            suite, notes = with_preprocessing(suite)
            for note in notes:
                reporter.note(note)
        record = run_suite(
            suite,
            folder,
            settings=settings,
            where=WHERE,
            supplied=supplied,
            progress=reporter,
            publish=write_report if output is not None else None,
        )
        digests = [row.digest for row in record.evaluations]
        found = {digest: read_outcome(folder / OUTCOMES, digest) for digest in digests}
        files = RunFiles.of(folder, temporary=output is None)
    known = {key: outcome for key, outcome in found.items() if outcome is not None}
    results = Results(record, known, files)
    if strict and (serious := results.serious_flags):
        text = serious_flags_text(serious)
        raise FlagError(
            f"the numbers must not be used yet:\n{text}", flags=serious, results=results
        )
    return results


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with files_of_this_process(), TemporaryDirectory(prefix="gibbon-") as folder:
        yield Path(folder)


def _bytes(size: int | str | None) -> int | None:
    try:
        return None if size is None else parse_bytes(size)
    except ValueError as error:
        raise SpecError(f"expected {error}, got {size!r}", where="cell_memory") from error


def _reporter(progress: Progress | bool | None) -> AbstractContextManager[Progress]:
    if progress in (True, None) and in_notebook():
        return NotebookProgress()
    if progress is True:
        return RunProgress(Console(stderr=True, emoji=False))
    return nullcontext(CallersProgress(progress) if progress else SILENT)
