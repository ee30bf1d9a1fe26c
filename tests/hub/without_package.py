"""Processes that cannot import the package, as those of people who load a checkpoint by its own code."""

import os
import subprocess
import sys
import textwrap

WITHOUT_PACKAGE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_sft" or name.startswith("modeling_sft."):
            raise ImportError("the package is not installed here")

sys.meta_path.insert(0, Blocker())
"""


def run_without_package(folder, home, script):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_PACKAGE + script), str(folder)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
