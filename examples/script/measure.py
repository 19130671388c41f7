"""Measures the robustness of a network of one's own, and writes everything to a folder.

python examples/script/measure.py [--limit 500] [--output measured]
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from gibbon import evaluate
from gibbon.datasets import DATASETS, DataRequest


def train(examples: int) -> nn.Module:
    """Returns a small network, trained for one epoch on the first examples of MNIST."""
    torch.manual_seed(0)
    data = DATASETS.load("mnist")(DataRequest(split="train"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.003)
    for batch in data.batches(torch.arange(examples).view(-1, 100).numpy()):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(batch.inputs), batch.labels).backward()
        optimiser.step()
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=500, help="examples that are attacked")
    parser.add_argument("--output", type=Path, default=Path("measured"))
    options = parser.parse_args()

    results = evaluate(
        train(10_000),
        "mnist",
        attack=["fgsm", {"name": "pgd", "steps": 20}, {"name": "square", "queries": 300}],
        epsilon=[0.05, 0.1],
        limit=options.limit,
        output=options.output,
        progress=True,
    )
    print(results)
    for row in results.evaluations:
        if not row.unattacked:
            print(f"{row.attack} at {row.epsilon}: {row.adversarial_error:.1%} of {row.examples}")
    results.report(options.output / "report.html")
    print(f"Tables, CSV files and report.html are in {options.output}")


if __name__ == "__main__":
    main()
