"""What is written down about the machine of a result."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modeling_sft.training.environment import describe_environment, processor_name


def test_processors_of_one_name_are_told_apart() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    content = cpuinfo.read_text() if cpuinfo.is_file() else ""
    found = {
        name: re.search(rf"^{name}\s*: (.+)$", content, re.MULTILINE) for name in ("model name", "cpu family", "model")
    }
    if not all(found.values()):
        pytest.skip("this processor has no family and model")
    name, family, model = (match.group(1) for match in found.values() if match is not None)
    assert processor_name() == f"{name} (family {family}, model {model})"
    assert describe_environment()["hardware"]
