"""Graphs: models, relation, message passing, encodings, molecules, processor and pipelines."""
