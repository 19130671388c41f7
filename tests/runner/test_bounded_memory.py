"""Memory is bounded by the batch: a run on more pictures needs no more of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Buffers of torch and pyarrow grow at first; from 4,000 to 50,000 pictures the peak grew by 95 MB.
FEW, MANY = 1_500, 3_000
PICTURE = 3 * 224 * 224 * 4  # bytes as float32
SHARE = 0.25  # of what the additional pictures would take if they were kept

SCRIPT = """
import resource, sys
import torch
from torch import nn
import gibbon

class Pictures(torch.utils.data.Dataset):
    classes = [f"class {number}" for number in range(1000)]

    def __len__(self):
        return int(sys.argv[1])

    def __getitem__(self, place):
        drawn = torch.Generator().manual_seed(place)
        small = torch.rand(3, 14, 14, generator=drawn)
        return small.repeat_interleave(16, 1).repeat_interleave(16, 2), place % 1000

torch.manual_seed(0)
model = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(147, 1000))
results = gibbon.evaluate(
    model, Pictures(), attack="fgsm", epsilon="4/255", batch_size=50, device="cpu", progress=False
)
(row,) = [each for each in results.record.evaluations if each.attack != "none"]
assert row.examples == len(Pictures()) and row.status == "done"
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    few, many = (_peak(count) for count in (FEW, MANY))
    assert many - few < SHARE * (MANY - FEW) * PICTURE


def _peak(count: int) -> int:
    """Returns the largest resident size, in bytes, of a run on so many pictures, 1,000 classes."""
    pytest.importorskip("resource")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[-1])
