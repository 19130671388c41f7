from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.base import ArrayDataset


def load(request: DataRequest) -> ArrayDataset:
    """MNIST upside down."""
    upright = DATASETS.load("mnist")(request)
    flipped = upright.pixels[:, :, ::-1].copy()
    return ArrayDataset("mnist-flipped", flipped, targets=upright.labels, classes=upright.classes)
