"""Attention of all tokens to the sampled ones: scores, probabilities, relations, and the backends."""
