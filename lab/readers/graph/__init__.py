"""Benchmark sets of graphs."""
