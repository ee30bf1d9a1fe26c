"""Runs scripts with the real Hub client in other processes: HF_ENDPOINT is read when huggingface_hub is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from paths import ROOT

BLOCKER = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_sft" or name.startswith("modeling_sft."):
            raise ImportError("the package is not installed here")

import sys
sys.meta_path.insert(0, Blocker())
import transformers.models.auto
"""

# Importing takes seconds, so it happens once; each script then runs in a fork.
LOOP = """
import json, os, sys, traceback
import torch, transformers

torch.set_num_threads(1)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            exec(compile(job["script"], "<script>", "exec"), {"__name__": "__main__"} | job["variables"])
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


RUN_SCRIPT = """
import runpy, sys, time

time.sleep = lambda seconds: None
sys.argv = [program, *arguments]
try:
    runpy.run_path(program, run_name="__main__")
except SystemExit as end:
    print("EXIT", end.code)
"""


class Client:
    """A process whose Hub is the test server. Use as a context manager.

    Args:
        url: of the server.
        home: HF_HOME: caches, code that came with checkpoints.
        token: HF_TOKEN; None is nobody.
        offline: whether HF_HUB_OFFLINE is set.
        has_package: whether `modeling_sft` can be imported.
    """

    def __init__(
        self, url: str, home: Path, token: str | None = None, offline: bool = False, has_package: bool = True
    ) -> None:
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
        environment |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        if token is not None:
            environment["HF_TOKEN"] = token
        if has_package:
            environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        prelude = "import modeling_sft, modeling_sft.training" if has_package else BLOCKER
        self._process = subprocess.Popen(
            [sys.executable, "-c", prelude + LOOP],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(self, script: str, fails: bool = False, **variables: object) -> str:
        """Run a script with some global variables, and return what it printed.

        It must end without an exception, or with one if `fails`, the traceback of which is then printed.
        """
        log = self._home / "log.txt"
        job = {"script": textwrap.dedent(script), "variables": variables, "log": str(log)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline().strip()
        text = log.read_text() if log.is_file() else ""
        assert status in ("0", "1") and (status == "1") == fails, f"status {status}:\n{text[-6000:]}"
        return text

    def run_command(self, name: str, *arguments: object) -> str:
        """Run a script of `scripts/`, without the client's waits between attempts; printed is also `EXIT code`."""
        return self.run(RUN_SCRIPT, program=str(ROOT / "scripts" / name), arguments=[str(each) for each in arguments])
