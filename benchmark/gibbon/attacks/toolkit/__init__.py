"""Parts that several attacks share: objectives, projections, schedules and search loops."""
