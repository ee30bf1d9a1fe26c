"""Point clouds: models, relation, geometry, files, processor and pipelines."""
