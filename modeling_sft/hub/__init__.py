"""The Hub: Auto classes, the code and files of a checkpoint, and the bases of processors and pipelines."""
