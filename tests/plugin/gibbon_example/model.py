from pathlib import Path

from torch import nn

from gibbon.models.classifier import Classifier
from gibbon.models.weights import load_weights

WEIGHTS = Path(__file__).with_name("cnn.safetensors")


def cnn(weights: Path = WEIGHTS) -> Classifier:
    """A small convolutional network for MNIST."""
    layers = [nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    module = nn.Sequential(*layers)
    load_weights(module, weights)
    return Classifier(module, classes=10, input_shape=(1, 28, 28))
