"""Benchmark sets of point clouds."""
