"""Certified bounds: proofs that no perturbation of a budget changes a model's answer.

`trace` records a torch module as a `Network` of affine and other operations.  `certify` bounds the
smallest margin of the true class over all points of a threat model, exactly for affine networks,
else by interval bound propagation (`interval_bounds`) and CROWN (`linear_bounds`).  A positive
lower bound proves that no candidate can be misclassified: the share of examples without such a
proof, the certified error, is an upper bound of the error under any attack.

Bounds are computed in float64 and cover the rounding of the model's own float32 arithmetic
(`rounding`).  A module with operations that are not supported gets no bound, with the reason.
"""
