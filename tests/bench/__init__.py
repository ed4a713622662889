"""Benchmarks. Each figure is a ratio to a reference measured in the same run, or is printed beside such a ratio."""
