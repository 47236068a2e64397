"""A sentence-embedding model and texts of different lengths: `python -m benchmarks lengths`."""
