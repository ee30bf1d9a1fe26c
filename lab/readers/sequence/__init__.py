"""Benchmark sets of sequences."""
