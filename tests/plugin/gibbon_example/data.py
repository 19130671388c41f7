from gibbon import datasets
from gibbon.datasets.base import ArrayDataset


def load(request: datasets.DataRequest) -> ArrayDataset:
    """MNIST upside down."""
    upright = datasets.DATASETS.load("mnist")(request)
    flipped = upright.pixels[:, :, ::-1].copy()
    return ArrayDataset("mnist-flipped", flipped, targets=upright.labels, classes=upright.classes)


DATASETS = {"mnist-flipped": load}
