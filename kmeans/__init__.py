"""The mathematics: exact hierarchical k-means, quotas and sampling in numpy, without Spark."""
