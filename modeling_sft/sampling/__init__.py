"""The learned sampler: importance scores, estimators of their gradient, deterministic selection."""
