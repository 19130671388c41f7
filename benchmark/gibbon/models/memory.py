"""Measures free memory and a model's need of it, and recognises exceptions of memory shortage.

Images and networks differ a thousandfold in size.  The first batch size is therefore estimated from
the memory that autograd keeps for a few examples; if the estimate is too high, the batch is halved.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from gibbon.core.plain_text import message_of

NOT_MEASURED = "saved tensor hooks"  # in what torch.func says inside of hooks

# Messages of allocators that raise a bare RuntimeError: those of the CPU, MPS, cuBLAS, cuDNN and
# ONNX Runtime.
SHORTAGE_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "Failed to allocate memory",
)

# Share of the free memory to use: the rest is for fragments, workspaces and other processes.
SHARE = 0.5

# A backward pass holds gradients beside saved tensors; an attack holds copies of its inputs.
PASSES = 2
INPUT_COPIES = 12

# A GPU needs larger batches than a CPU to be busy: the factor between them.
GPU_FACTOR = 16
FLOAT_BYTES = 4
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def is_shortage(error: BaseException) -> bool:
    """Returns whether an exception, or its cause, means that memory ran out.

    >>> is_shortage(torch.OutOfMemoryError("CUDA out of memory.")), is_shortage(ValueError("no"))
    (True, False)
    """
    causes: list[BaseException] = []  # which somebody may have linked to a ring
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in causes):
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(cause, RuntimeError) and any(
            word in message_of(cause) for word in SHORTAGE_WORDS
        ):
            return True
        causes.append(cause)
        cause = cause.__cause__
    return False


def free_memory(device: torch.device) -> int | None:
    """Returns the number of bytes available on a device, or None if it is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [each for each in (_available(), _left_to_group()) if each is not None]
    return min(known, default=None)


def give_back(device: torch.device) -> None:
    """Frees unreferenced tensors, and the cached blocks of the device's allocator."""
    gc.collect(1)  # garbage of a batch is young; a full collection takes long
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def kept_bytes(module: nn.Module, inputs: Tensor) -> int:
    """Returns the number of bytes that autograd saves for one example's backward pass.

    It is measured, on any device, in a forward pass of these inputs, shape (N, *input_shape); the
    module's own tensors are not counted.  Zero if the module has no gradients, or differentiates
    by `torch.func`, which can't be measured.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(module)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = inputs.detach().clone().requires_grad_()
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    try:
        with torch.enable_grad(), hooks:
            outputs = module(leaf)
    except RuntimeError as error:
        if NOT_MEASURED not in message_of(error):
            raise
        return 0
    if not issubclass(type(outputs), Tensor) or not outputs.requires_grad:
        return 0
    total = sum(size for place, size in kept.items() if place not in own)
    return -(-total // max(1, len(inputs)))


def state_bytes(module: nn.Module) -> int:
    """Returns the number of bytes of a module's parameters and buffers; tied ones count once."""
    return sum(
        {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in tensors_of(module)
        }.values()
    )


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yields a module's parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()


def guess_batch_size(
    usual: int, *, device: torch.device, kept: int, numbers: int, free: int | None
) -> int:
    """Returns a batch size that is likely to fit; on a CPU it never exceeds the usual one.

    Args:
        usual: the usual batch size.
        device: device of the model.
        kept: bytes that autograd saves for an example (see `kept_bytes`).
        numbers: coordinates of one input.
        free: bytes of free memory, or None if unknown.

    >>> cpu = torch.device("cpu")
    >>> guess_batch_size(1000, device=cpu, kept=10_000, numbers=784, free=8 * 2**30)
    1000
    >>> guess_batch_size(16, device=cpu, kept=200 * 2**20, numbers=150_528, free=4 * 2**30)
    5
    """
    if free is None or kept == 0:
        return usual
    wanted = usual * GPU_FACTOR if device.type == "cuda" else usual
    fitting = int(free * SHARE) // (PASSES * kept + INPUT_COPIES * FLOAT_BYTES * numbers)
    return max(1, min(wanted, fitting))


class BatchSize:
    """How many examples are given to a model at once: ``first``, or fewer after memory ran out.

    A size that is ``fixed``, because the user chose it, is never halved.
    """

    def __init__(self, first: int, *, fixed: bool) -> None:
        self.now = self._first = first
        self._fixed = fixed

    @property
    def fixed(self) -> bool:
        """Whether the user chose the size."""
        return self._fixed

    def divided(self, by: int) -> BatchSize:
        """Returns a size for examples that need so many times the memory, at least 1."""
        return BatchSize(max(1, self._first // by), fixed=self._fixed)

    def may_halve(self, count: int) -> bool:
        """Returns whether a batch of so many examples is halved when memory runs out."""
        return not self._fixed and count > 1

    def halve(self, tried: int) -> None:
        """Continues with half of a size that was too large."""
        self.now = max(1, tried // 2)

    def reset(self) -> None:
        """Returns to the first size: one attack alone may have needed too much."""
        self.now = self._first


def in_pieces(
    run: Callable[[slice], Tensor], count: int, *, device: torch.device
) -> tuple[Tensor, ...]:
    """Returns the results of ``run`` on ``range(count)``, in several slices if memory is short."""
    size = count
    while True:
        pieces = _try_pieces(run, count, size)
        if pieces is not None:
            return pieces
        give_back(device)
        size = max(1, size // 2)


def _try_pieces(run: Callable[[slice], Tensor], count: int, size: int) -> tuple[Tensor, ...] | None:
    try:
        return tuple(run(slice(start, start + size)) for start in range(0, count, size))
    except Exception as error:
        if size == 1 or not is_shortage(error):
            raise
    return None  # outside of ``except``: its traceback would keep the tensors alive


def _available() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except OSError:  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (AttributeError, ValueError, OSError):
            return None


def _left_to_group() -> int | None:
    """Returns the bytes left within a container's limit, or None if there is no limit."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        held = next(
            int(line.split()[1])
            for line in (CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("anon ")
        )
    except (OSError, ValueError, StopIteration):  # no such group, or no limit: "max"
        return None
    return max(0, limit - held)
