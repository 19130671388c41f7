"""Batches on their way to a device."""

import pytest
import torch

from gibbon.datasets.base import Batch


@pytest.mark.parametrize(("device", "pinned"), [("cuda", 3), ("meta", 0)])
def test_a_batch_is_pinned_on_its_way_to_a_gpu(monkeypatch, device, pinned):
    pins, moves = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda each: pins.append(each) or each)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda each, *to, **how: moves.append((*to, how)) or each
    )
    batch = Batch(torch.arange(2), torch.rand(2, 3), torch.zeros(2, dtype=torch.int64))
    batch.to(torch.device(device))
    assert len(pins) == pinned
    assert moves == [(torch.device(device), {"non_blocking": True})] * 3
