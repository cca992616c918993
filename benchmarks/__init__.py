"""Benchmarks: `pytest benchmarks` times each work, `python -m benchmarks` compares the twins and other codecs side by side."""
