"""The command `sft`: one module for each of its sub-commands, which import torch only when they run."""

from .program import main

__all__ = ["main"]
