"""Benchmarks: Lakestrata side by side with its peers, as ratios. `make bench` runs them and writes RESULTS.md."""
