"""Reports of runs and comparisons of them."""
