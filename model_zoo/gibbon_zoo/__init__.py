"""Models that come with Gibbon: architectures, recipes, training, and the weights they made.

One file an architecture (`softmax`, `logistic`, `maxout`, `rbf`), one TOML file a recipe
(``recipes/``), one loop that trains them all (`training`), and for each recipe a weights file
with a card that says how it was made and what it measures (``weights/``).  The benchmark finds
all of it through entry points that lead to `catalogue`, as it finds anybody else's models.
"""
