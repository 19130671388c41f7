"""Parts that several attacks share: objectives, projections, searches and their records."""
