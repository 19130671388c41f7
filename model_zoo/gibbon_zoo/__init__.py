"""The models that come with Gibbon: architectures, recipes, training and weights.

There is one file for each architecture (`softmax`, `logistic`, `maxout`, `conv_maxout`, `rbf`), one
TOML file for each recipe (``recipes/``), one training loop (`training`), and for each recipe a
weights file with a card about its training and its error rates (``weights/``).  The benchmark finds
the models through the entry points that name `catalogue`, as it finds those of any other package.
"""
