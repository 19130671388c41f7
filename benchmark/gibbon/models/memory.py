"""How much memory there is, how much a model needs for an example, and what a shortage looks like.

Pictures and networks differ a thousandfold in size, so that the first batch size is a guess from
what autograd keeps of a few examples.  Where the guess was too high the batch is halved.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

# What the allocators say that raise a bare RuntimeError: the CPU's, MPS's, cuBLAS and cuDNN,
# ONNX Runtime's.
SHORTAGE_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "Failed to allocate memory",
)

# Of what is free: the rest is for fragments, workspaces and other processes.
SHARE = 0.5

# Backward holds gradients beside what forward kept; an attack holds some copies of its inputs.
PASSES = 2
INPUT_COPIES = 12

# A GPU is not kept busy by what suits a CPU: so many times its batch.
GPU_FACTOR = 16
FLOAT_BYTES = 4
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def is_shortage(error: BaseException) -> bool:
    """Says whether an exception means that memory ran out.

    >>> is_shortage(torch.OutOfMemoryError("CUDA out of memory.")), is_shortage(ValueError("no"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = isinstance(error, RuntimeError) and any(word in str(error) for word in SHORTAGE_WORDS)
    return told or (error.__cause__ is not None and is_shortage(error.__cause__))


def free_memory(device: torch.device) -> int | None:
    """Returns how many bytes can be had on a device, or None where that can't be told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [each for each in (_available(), _left_to_group()) if each is not None]
    return min(known, default=None)


def give_back(device: torch.device) -> None:
    """Frees what nobody holds any more, cached blocks of the device's allocator too."""
    gc.collect(1)  # what a batch left behind is young; a full collection takes long
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def kept_bytes(module: nn.Module, inputs: Tensor) -> int:
    """Returns how many bytes one example makes autograd keep for a backward pass.

    Measured on any device, by what is saved while these inputs, shape (N, *input_shape), go
    through; the module's own tensors are not counted.  Zero where there are no gradients.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(module)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = module(leaf)
    if not isinstance(outputs, Tensor) or not outputs.requires_grad:
        return 0
    total = sum(size for place, size in kept.items() if place not in own)
    return -(-total // max(1, len(inputs)))


def state_bytes(module: nn.Module) -> int:
    """Returns how many bytes a module's parameters and buffers take, tied ones counted once."""
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
    """Returns a batch size that is likely to fit: on a CPU never more than the usual one.

    ``kept`` are bytes an example (see `kept_bytes`), ``numbers`` those of one input, ``free``
    bytes.

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


def in_pieces(
    run: Callable[[slice], Tensor], count: int, *, device: torch.device
) -> tuple[Tensor, ...]:
    """Returns what ``run`` makes of slices of ``range(count)``: one, or more if memory is short."""
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
    """What a container may still take, where it is limited."""
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
