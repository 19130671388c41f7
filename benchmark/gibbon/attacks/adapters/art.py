"""The Adversarial Robustness Toolbox's attacks: ``art:ProjectedGradientDescentPyTorch``.

Source: M.-I. Nicolae et al., "Adversarial Robustness Toolbox v1.0.0", 2018,
https://arxiv.org/abs/1807.01069, https://github.com/Trusted-AI/adversarial-robustness-toolbox.
Tried with 1.20.1.

It works on numpy arrays: inputs and candidates are converted in float32.  The adapter passes the
box as ``clip_values``, no preprocessing (the model contains its own), the device (the default is a
GPU) and the true labels (the default is the predictions).  Parameters that are lengths, such as
``eps_step``, are in the units of the model's input; their defaults assume pixels in [0, 1].
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.attacks.adapters.adapting import BUDGET, NORM, Adapter, Library, LibraryAttack, Task
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm

LIBRARY = Library(
    "art", "adversarial-robustness-toolbox", "pip install adversarial-robustness-toolbox"
)
POWERS: dict[Norm, object] = {Norm.LINF: "inf", Norm.L2: 2, Norm.L1: 1}
EVERY = (Norm.LINF, Norm.L2, Norm.L1)


@dataclass(frozen=True)
class _Class:
    """The properties of a class.

    Args:
        norms: the norms that it supports; with several it has an argument ``norm``.
        minimal: whether it looks for the nearest example, without ``eps``.
        needs_gradient: whether it takes gradients.
    """

    norms: tuple[Norm, ...] = EVERY
    minimal: bool = False
    needs_gradient: bool = True


_LINF, _L2, _L1 = (Norm.LINF,), (Norm.L2,), (Norm.L1,)
CLASSES = {
    "FastGradientMethod": _Class(),
    "BasicIterativeMethod": _Class(_LINF),
    "MomentumIterativeMethod": _Class(),
    "ProjectedGradientDescent": _Class(),
    "ProjectedGradientDescentNumpy": _Class(),
    "ProjectedGradientDescentPyTorch": _Class(),
    "AutoProjectedGradientDescent": _Class(),
    "AutoConjugateGradient": _Class(),
    "RescalingAutoConjugateGradient": _Class(),
    "AutoAttack": _Class((Norm.LINF, Norm.L2)),
    "SquareAttack": _Class((Norm.LINF, Norm.L2), needs_gradient=False),
    "DeepFool": _Class(_L2, minimal=True),
    "CarliniL2Method": _Class(_L2, minimal=True),
    "CarliniLInfMethod": _Class(_LINF, minimal=True),
    "ElasticNet": _Class(_L1, minimal=True),
    "ZooAttack": _Class(_L2, minimal=True, needs_gradient=False),
    "SignOPTAttack": _Class(_L2, minimal=True, needs_gradient=False),
}
DEPARTURES = {
    "CarliniL2Method": {"optimum": "the 10 steps that it takes by default are too few"},
    "SquareAttack": {"optimum": "the 100 queries that it makes by default are too few"},
    "DeepFool": {
        "optimum": "its overshoot of 1e-6 leaves some on the boundary; the parameter's name, "
        "epsilon, is the suite's"
    },
}
UNREPEATABLE = (
    "it draws from a generator that the operating system seeds, so that no run can be repeated"
)
REFUSED = {
    "HopSkipJump": f"{UNREPEATABLE}; foolbox:HopSkipJumpAttack can",
    "BoundaryAttack": f"{UNREPEATABLE}; foolbox:BoundaryAttack can",
    "GeoDA": "it calls np.mat, which NumPy 2 does not have",
    **dict.fromkeys(
        ("NewtonFool", "SimBA", "VirtualAdversarialMethod"),
        "it needs a model that gives probabilities",
    ),
    "ShadowAttack": "it takes one example at a time and no budget",
    "SpatialTransformation": "it turns and shifts pictures, which no norm measures",
    "Wasserstein": "it measures in the Wasserstein distance",
    "CompositeAdversarialAttackPyTorch": "it turns and recolours pictures, which no norm measures",
    "LaserAttack": "it draws beams of light, which no norm measures",
    "LowProFool": "it needs the importance of each feature of a table",
    "DecisionTreeAttack": "it attacks decision trees",
    "HighConfidenceLowUncertainty": "it attacks Gaussian processes",
    "MalwareGDTensorFlow": "it attacks detectors of malware",
    "ProjectedGradientDescentTensorFlowV2": "it works on TensorFlow; "
    "art:ProjectedGradientDescentPyTorch is the same",
    **dict.fromkeys(
        ("UniversalPerturbation", "TargetedUniversalPerturbation"),
        "it makes one perturbation for all examples",
    ),
    **dict.fromkeys(
        ("PixelAttack", "ThresholdAttack", "SaliencyMapMethod", "CarliniL0Method"),
        "it works in L0 or counts in pixel values",
    ),
    **dict.fromkeys(
        (
            *("AdversarialPatch", "AdversarialPatchNumpy", "AdversarialPatchPyTorch"),
            *("AdversarialPatchTensorFlowV2", "AdversarialTexturePyTorch"),
            *("DPatch", "RobustDPatch", "GRAPHITEBlackbox", "GRAPHITEWhiteboxPyTorch"),
        ),
        "it makes a patch, which no norm measures",
    ),
    **dict.fromkeys(
        ("CarliniWagnerASR", "ImperceptibleASR", "ImperceptibleASRPyTorch"),
        "it attacks the recognition of speech",
    ),
    **dict.fromkeys(("FrameSaliencyAttack", "OverTheAirFlickeringPyTorch"), "it attacks videos"),
    **dict.fromkeys(("OverloadPyTorch", "SNAL"), "it attacks detectors of objects"),
    **dict.fromkeys(
        (
            *("FeatureAdversariesNumpy", "FeatureAdversariesPyTorch"),
            "FeatureAdversariesTensorFlowV2",
        ),
        "it needs pictures to imitate",
    ),
}

# Imported by ART at run time, and not among its requirements.
ALSO_NEEDED = {"AutoAttack": Library("multiprocess", "multiprocess", "pip install multiprocess")}
RESERVED = {
    "estimator": "it is the suite's model",
    "classifier": "it is the suite's model",
    "eps": BUDGET,
    "norm": NORM,
    "batch_size": "the benchmark hands over whole batches; see --batch-size",
    "summary_writer": "libraries write no files here",
    "minimal": "it searches its own budget; the budget is the suite's `epsilon`",
    **dict.fromkeys(
        ("attacks", "estimator_orig", "adv_criterion", "loss"),
        "it takes objects, which a suite can't name",
    ),
    "parallel_pool_size": "it starts processes of its own",
}


def describe(name: str) -> LibraryAttack:
    """Describes ``art.attacks.evasion.NAME``."""
    evasion = LIBRARY.load("attacks.evasion")
    if name in REFUSED:
        raise SpecError(f"ART's {name} can't be used here: {REFUSED[name]}")
    kind = getattr(evasion, name, None)
    if name not in CLASSES or kind is None:
        raise LIBRARY.unknown(name, known=[each for each in CLASSES if each in vars(evasion)])
    if name in ALSO_NEEDED:
        ALSO_NEEDED[name].load()
    known = CLASSES[name]
    return LibraryAttack(
        name=name,
        library=LIBRARY,
        norms=known.norms,
        run=lambda task: _run(kind, task),
        signature=inspect.signature(kind),
        minimal=known.minimal,
        needs_gradient=known.needs_gradient,
        search_method=_search_method(name, known),
        reserved=RESERVED,
        departures=DEPARTURES.get(name, {}),
    )


def _search_method(name: str, known: _Class) -> SearchMethod | None:
    if known.minimal or not known.needs_gradient:
        return None
    one_step = name == "FastGradientMethod"
    return SearchMethod.SINGLE_STEP if one_step else SearchMethod.ITERATIVE


class _OnItsDevice(nn.Module):
    """Calls a model where it is: ART knows the CPU and torch's current CUDA device only."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model, self.device = model, device

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs where the inputs are."""
        outputs: Tensor = self.model(inputs.to(self.device))
        return outputs.to(inputs.device)


def _run(kind: type[Any], task: Task) -> Tensor:
    estimators = LIBRARY.load("estimators.classification")
    device = task.inputs.device
    estimator = estimators.PyTorchClassifier(
        model=_OnItsDevice(task.model, device),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(task.inputs.shape[1:]),
        nb_classes=task.classes,
        clip_values=(task.bounds.low, task.bounds.high),
        preprocessing=None,
        device_type="gpu" if device.type == "cuda" else "cpu",
    )
    given = task.arguments(
        kind,
        eps=task.epsilon,
        norm=POWERS[task.norm],
        batch_size=len(task.inputs),
        targeted=False,
        verbose=False,
    )
    attack = kind(estimator, **given)
    arrays = task.inputs.cpu().numpy(), task.labels.cpu().numpy()
    returned: object = attack.generate(x=arrays[0], y=arrays[1])
    return torch.from_numpy(np.ascontiguousarray(returned, dtype=np.float32))


ART = Adapter(describe)
