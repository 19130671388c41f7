"""The trust boundary.  Attacks propose, verify decides.

No other package decides that an example is adversarial.

- `gibbon.verify.guard` runs an attack on a copy of the inputs and checks what it left changed.
- `gibbon.verify.proposal` turns what the attack returns into one `Proposal` for each epsilon.
- `gibbon.verify.judge` checks every candidate (shape, dtype, finiteness, bounds, distance) and
  predicts again, under ``no_grad``.  A candidate out of budget is not adversarial, whatever the
  model predicts for it; nothing is clipped into the budget silently.
- `gibbon.verify.answers` reads classes and confidences from a model's outputs.

The cost is the least number of passes possible.  A `DirectionAttack` at k epsilons takes one
forward and one backward pass, which also give the clean prediction, and k forward passes; fewer if
examples misclassified at a smaller epsilon are carried (``before`` of `judge`).  A
`MinimalNormAttack` takes one search and one forward pass for any number of epsilons: at each of
them the candidate is the point found or the clean input, and the answers to both are known.
"""
