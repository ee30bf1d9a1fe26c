"""Where the repository is, and the optional folder of benchmark data and tools beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
