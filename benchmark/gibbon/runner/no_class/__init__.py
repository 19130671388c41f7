"""Models on inputs that belong to no class: plans, measures and counts them."""
