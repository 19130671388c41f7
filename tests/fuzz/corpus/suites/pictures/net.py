from torch import nn


def build(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width))


other = build
