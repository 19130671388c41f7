"""An example suite for every key, which `tests/tools/test_site.py` parses."""

from __future__ import annotations

from typing import Final

_HEAD = 'name = "mine"\n'
_DATA = 'dataset = "mnist"\n'
_MODELS = 'models = ["softmax", "maxout"]\n'
_ATTACK = '\n[[attacks]]\nname = "pgd"\nepsilon = "0.1"\n'
_NOISE = 'dataset = { name = "noise", source = "rubbish:gaussian", count = 1000 }\n'
_PUBLISHED = """
[[published]]
dataset = "mnist"
model = "softmax"
measure = "adversarial_error"
section = "table 1"
attack = "pgd"
epsilon = "0.1"
"""
_CLAIM = """
[[claims]]
id = "maxout-resists"
section = "table 1"
text = "maxout resists more than softmax"
order = "lower"
first = { dataset = "mnist", model = "maxout", measure = "adversarial_error", attack = "pgd", epsilon = "0.1" }
"""
_SECOND = (
    _CLAIM.splitlines()[-1].replace("first", "second", 1).replace('"maxout"', '"softmax"') + "\n"
)
_TRANSFER_ROW = """
[[published]]
dataset = "mnist"
model = "maxout"
measure = "same_class_given_both_misclassified"
section = "table 1"
attack = "pgd"
epsilon = "0.1"
value = 0.5
target = "softmax"
compared_with = "rbf"
"""

# The lines that a key needs, within the table that they belong to.
_OWN: Final[dict[tuple[str, str], str]] = {
    ("suite", "title"): 'title = "Two models on MNIST"',
    ("suite", "description"): 'description = "Does maxout resist PGD more than softmax?"',
    ("suite", "seed"): "seed = 7",
    ("suite", "source"): 'source = "Goodfellow, Shlens and Szegedy (2015)"',
    ("suite", "accept"): 'accept = ["zero-gradient"]',
    ("suite", "certify"): "certify = true",
    ("suite", "isolate"): "isolate = true",
    ("suite", "cell_timeout"): "isolate = true\ncell_timeout = 600",
    ("suite", "cell_memory"): 'isolate = true\ncell_memory = "4GB"',
    ("experiment", "error_only"): "error_only = true",
    ("experiment", "draws"): "draws = 20",
    ("experiment", "headline"): 'headline = "0.1"',
    ("suite", "keep_examples"): "keep_examples = 100",
    ("dataset", "source"): 'source = "photos/val"',
    ("dataset", "name"): 'name = "photos", source = "photos/val"',
    ("dataset", "split"): 'source = "mnist", split = "train"',
    ("dataset", "class_map"): 'source = "photos/val", class_map = "imagenet"',
    ("dataset", "class_order"): 'source = "photos/val", class_order = "numeric"',
    ("dataset", "labels"): 'source = "inputs.npy", labels = "labels.npy"',
    ("dataset", "inputs"): 'source = "data.npz", inputs = "x"',
    ("dataset", "layout"): 'source = "data.npz", layout = "NHWC"',
    ("dataset", "bounds"): 'source = "table.npz", bounds = [-3.0, 3.0]',
    ("dataset", "resize"): 'source = "photos/val", resize = 256, crop = 224',
    ("dataset", "crop"): 'source = "photos/val", resize = 256, crop = 224',
    ("dataset", "interpolation"): 'source = "photos/val", resize = 256, interpolation = "bicubic"',
    ("dataset", "colour"): 'source = "photos/val", colour = "rgb"',
    ("dataset", "skip_unreadable"): 'source = "photos/val", skip_unreadable = true',
    ("dataset", "arguments"): 'source = "data.py:load", arguments = { deviation = 0.1 }',
    ("model", "name"): 'name = "mine", model = "net.py:build"',
    ("model", "model"): 'model = "net.py:build"',
    ("model", "weights"): 'model = "net.py:build", weights = "net.safetensors"',
    ("model", "weights_key"): 'model = "net.py:build", weights = "net.pt", weights_key = "ema"',
    (
        "model",
        "weights_prefix",
    ): 'model = "net.py:build", weights = "net.pt", weights_prefix = "module"',
    ("model", "arguments"): 'model = "net.py:build", arguments = { width = 32 }',
    ("model", "mean"): 'model = "net.py:build", mean = [0.5], std = [0.25]',
    ("model", "std"): 'model = "net.py:build", mean = [0.5], std = [0.25]',
    ("model", "outputs"): 'model = "net.py:build", outputs = "probabilities"',
    ("model", "trust_code"): 'model = "net.pt2", trust_code = true',
    ("model", "trust_pickle"): 'model = "net.pt2", trust_pickle = true',
    ("model", "ensemble"): 'name = "both", ensemble = ["softmax", "maxout"]',
    ("model", "fuse"): 'name = "both", ensemble = ["softmax", "maxout"], fuse = "logits"',
    ("model", "shares"): 'name = "both", ensemble = ["softmax", "maxout"], shares = [1.0, 2.0]',
    (
        "model",
        "seeds_of",
    ): 'name = "net-1", model = "net.py:build", weights = "1.safetensors", seeds_of = "net"',
    ("attack", "name"): "",
    ("attack", "epsilon"): "",
    ("attack", "label"): 'label = "pgd-20"\nsteps = 20',
    ("attack", "norm"): 'norm = "l2"',
    ("attack", "clip"): "clip = false",
    ("attack", "optional"): "optional = true",
    ("attack", "carried"): "carried = true",
    ("attack", "eot"): "eot = 16",
    ("attack", "backward"): 'backward = { "0" = "identity" }',
    ("attack", "before"): 'before = "softmax"',
    ("published", "value"): "value = 0.5",
    ("published", "id"): 'id = "softmax-pgd"\nvalue = 0.5',
    ("published", "above"): "value = 0.5\nabove = true",
    ("published", "tolerance"): "value = 0.5\ntolerance = 0.02",
    ("published", "bound"): 'value = 0.5\nbound = "upper"',
    ("published", "norm"): 'value = 0.5\nnorm = "linf"',
    ("published", "reason"): 'value = 0.5\nreason = "a larger network"',
    ("published", "needs"): 'value = 0.5\nneeds = "weights, which are downloaded"',
    ("published", "note"): 'value = 0.5\nnote = "mean of five seeds"',
    ("published", "judged_by"): 'value = 0.5\njudged_by = "range"',
    ("claim", "note"): _SECOND + 'note = "on 240 units"',
    ("claim", "needs"): _SECOND + 'needs = "weights, which are downloaded"',
    ("claim", "constant"): "constant = 0.5",
}
_WHOLE: Final[dict[tuple[str, str], str]] = {
    ("suite", "experiments"): _HEAD
    + '\n[[experiments]]\ndataset = "mnist"\nmodels = ["softmax"]\n'
    + '\n[[experiments]]\ndataset = "fashion-mnist"\nmodels = ["maxout"]\n',
    ("published", "of_class"): _HEAD
    + _NOISE
    + _MODELS
    + '\n[[published]]\ndataset = "noise"\nmodel = "maxout"\nmeasure = "fooling_rate"\n'
    + 'section = "appendix A"\nvalue = 0.2\nof_class = 3\n',
    ("published", "effect"): _HEAD
    + _DATA
    + _MODELS
    + _ATTACK
    + _PUBLISHED
    + 'value = 0.5\neffect = "maxout-resists"\n'
    + _CLAIM
    + _SECOND,
    ("experiment", "against"): _HEAD
    + '\n[[experiments]]\ndataset = "mnist"\nmodels = ["maxout"]\n\n[[experiments]]\n'
    + _NOISE
    + 'models = ["maxout"]\nagainst = "mnist"\n',
}
for _key, _measure, _more in (
    ("text", "one_picture", 'text = "panda, then gibbon"'),
    ("proved", "certified_error", 'norm = "linf"\nvalue = 0.5\nproved = "proved.txt"'),
):
    _row = _PUBLISHED.replace("adversarial_error", _measure)
    _WHOLE["published", _key] = f"{_HEAD}{_DATA}{_MODELS}{_ATTACK}{_row}{_more}\n"
_NO_CLASS_KEYS = {
    ("experiment", "threshold"): "threshold = 0.9\n",
    ("experiment", "fooling"): 'fooling = { step = "0.1" }\n',
    ("fooling", "step"): 'fooling = { step = "0.1" }\n',
    ("fooling", "direction"): 'fooling = { step = "0.1", direction = "gradient" }\n',
}
_CLASSLESS = {
    ("dataset", "classes"): '{ source = "photos/other", classes = "none" }',
    ("dataset", "count"): '{ source = "rubbish:gaussian", count = 1000 }',
    ("dataset", "shape"): '{ source = "rubbish:gaussian", shape = [1, 28, 28] }',
}


def example(table: str, key: str) -> str:
    """Returns a suite that sets a key, as TOML."""
    place = (table, key)
    if place in _WHOLE:
        return _WHOLE[place]
    if place in _NO_CLASS_KEYS:
        return _HEAD + _NOISE + _MODELS + _NO_CLASS_KEYS[place]
    if place in _CLASSLESS:
        return f"{_HEAD}dataset = {_CLASSLESS[place]}\n{_MODELS}"
    own = _OWN.get(place, "")
    if table == "dataset":
        return f"{_HEAD}dataset = {{ {own} }}\n{_MODELS}{_ATTACK}"
    if table == "model":
        return f"{_HEAD}{_DATA}models = [{{ {own} }}]\n{_ATTACK}"
    if table == "attack":
        return f"{_HEAD}{_DATA}{_MODELS}{_ATTACK}{own}\n"
    if table == "transfer" or place == ("experiment", "transfer"):
        return f'{_HEAD}{_DATA}{_MODELS}{_ATTACK}\n[transfer]\nattacks = ["pgd"]\n'
    if place in {("published", "target"), ("published", "compared_with")}:
        third = 'models = ["softmax", "maxout", "rbf"]\n'
        return f'{_HEAD}{_DATA}{third}{_ATTACK}\n[transfer]\nattacks = ["pgd"]\n{_TRANSFER_ROW}'
    if place in {("measure", "target"), ("measure", "compared_with")}:
        third = 'models = ["softmax", "maxout", "rbf"]\n'
        claim = _CLAIM.replace(
            'measure = "adversarial_error"',
            'measure = "same_class_given_both_misclassified", target = "softmax", compared_with = "rbf"',
        )
        return f'{_HEAD}{_DATA}{third}{_ATTACK}\n[transfer]\nattacks = ["pgd"]\n{claim}constant = 0.5\n'
    if table == "published" or place == ("suite", "published"):
        return f"{_HEAD}{_DATA}{_MODELS}{_ATTACK}{_PUBLISHED}{own or 'value = 0.5'}\n"
    if table in ("claim", "measure") or place == ("suite", "claims"):
        return f"{_HEAD}{_DATA}{_MODELS}{_ATTACK}{_CLAIM}{own or _SECOND}\n"
    return f"{_HEAD}{own + chr(10) if own else ''}{_DATA}{_MODELS}{_ATTACK}"
