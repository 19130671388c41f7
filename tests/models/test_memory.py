"""What memory is needed and free, and what a shortage looks like."""

import pytest
import torch
from torch import nn

from gibbon.models import memory
from gibbon.models.memory import (
    free_memory,
    guess_batch_size,
    in_pieces,
    is_shortage,
    kept_bytes,
    state_bytes,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def chained(inner: BaseException) -> RuntimeError:
    outer = RuntimeError("the attack gave up")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (chained(torch.OutOfMemoryError("CUDA out of memory.")), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_shortages_are_told_from_other_errors(error, short):
    assert is_shortage(error) is short


def test_what_the_allocator_really_raises_is_a_shortage():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert is_shortage(raised.value)


def test_what_backward_keeps_is_counted_by_example_without_the_weights():
    """A linear map keeps its weights alone; a square, its input."""

    class Square(nn.Module):
        def forward(self, inputs):
            return inputs.square()

    linear = nn.Linear(10, 1000).requires_grad_(False)
    assert kept_bytes(linear, torch.rand(3, 10)) == 0
    assert kept_bytes(Square(), torch.rand(3, 10)) == 10 * 4
    deep = nn.Sequential(linear, nn.Sigmoid(), Square())
    assert kept_bytes(deep, torch.rand(3, 10)) == 1000 * 4  # the sigmoid's outputs, kept twice


def test_without_gradients_nothing_is_kept():
    class Opaque(nn.Module):
        def forward(self, inputs):
            return inputs.detach().square()

    assert kept_bytes(Opaque(), torch.rand(3, 10)) == 0


def test_tied_tensors_are_counted_once():
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    assert state_bytes(module) == 2 * 64 * 4
    module[1].weight = module[0].weight
    assert state_bytes(module) == 64 * 4


def test_the_usual_size_is_taken_where_memory_allows():
    assert guess_batch_size(1000, device=CPU, kept=1000, numbers=784, free=2**33) == 1000
    assert guess_batch_size(1000, device=CPU, kept=1000, numbers=784, free=None) == 1000


def test_a_gpu_is_given_more_and_a_large_network_less():
    assert guess_batch_size(16, device=CUDA, kept=10**6, numbers=784, free=2**37) > 16
    assert guess_batch_size(16, device=CUDA, kept=10**9, numbers=784, free=2**33) == 2
    assert guess_batch_size(16, device=CPU, kept=10**12, numbers=784, free=2**33) == 1


def test_free_memory_is_what_the_machine_or_the_container_leaves(tmp_path, monkeypatch):
    machine = tmp_path / "meminfo"
    machine.write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", machine)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_memory(CPU) == 8_000_000 * 1024
    (tmp_path / "memory.stat").write_text("anon 1000\nfile 5000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(CPU) == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) == 8_000_000 * 1024


def test_pieces_are_halved_until_they_fit():
    sizes = []

    def run(part):
        taken = torch.arange(20)[part]
        sizes.append(len(taken))
        if len(taken) > 6:
            raise torch.OutOfMemoryError
        return taken

    assert torch.equal(torch.cat(in_pieces(run, 20, device=CPU)), torch.arange(20))
    assert sizes == [20, 10, 5, 5, 5, 5]


def test_a_single_example_that_is_too_large_is_an_error():
    def run(part):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        in_pieces(run, 4, device=CPU)
