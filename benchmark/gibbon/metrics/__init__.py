"""Metrics: values for each example first, then rates and means, reduced once, in float64."""
