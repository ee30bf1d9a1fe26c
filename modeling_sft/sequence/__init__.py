"""Sequences: models, relation, local mixing, tokenizers and the feature extractor."""
