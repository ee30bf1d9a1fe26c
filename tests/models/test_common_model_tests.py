"""Transformers' own model tests, run by the harness in the shared folder (see CONTRIBUTING.md) where it is present."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT

HARNESS = Path(os.environ.get("SFT_SHARED", ROOT.parent / "shared")) / "tools" / "mtm"
# What the adapter itself leaves out; the rest are skips of Transformers (no GPU, no generation, no images, ...).
MAX_ADAPTER_SKIPS = 7


@pytest.mark.slow
@pytest.mark.skipif(not HARNESS.is_dir(), reason="the shared folder with the test harness is not here")
def test_transformers_model_tests_pass(tmp_path):
    report = tmp_path / "report.json"
    environment = os.environ | {
        "MTM_ADAPTER": str(ROOT / "tests" / "models" / "mtm_adapter.py"),
        "MTM_PATH": str(ROOT),
        "MTM_REPORT": str(report),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "test_oot.py", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(command, cwd=HARNESS, env=environment, capture_output=True, text=True)
    assert report.is_file(), result.stdout[-3000:] + result.stderr[-3000:]
    outcomes = json.loads(report.read_text())
    failed = {name: outcome["why"] for name, outcome in outcomes.items() if outcome["outcome"] == "failed"}
    assert result.returncode == 0 and not failed, result.stdout[-3000:]
    skipped = [outcome["why"] for outcome in outcomes.values() if "adapter: " in outcome["why"]]
    assert len(skipped) <= MAX_ADAPTER_SKIPS
    assert sum(outcome["outcome"] == "passed" for outcome in outcomes.values()) > 300
