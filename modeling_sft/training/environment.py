"""The versions and hardware that a result was obtained with."""

import importlib.metadata
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("modeling-sft", "torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "scikit-learn")


def describe_environment() -> dict[str, Any]:
    """Return date, command, versions and hardware of this process, ready for JSON."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "hardware": _hardware(),
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{processor_name()}, {torch.get_num_threads()} thread(s)"


def processor_name() -> str:
    """The name of the CPU, where known with family and model: hosts may hide the rest of the name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if name := fields.get("model name"):
            numbers = [fields[field] for field in ("cpu family", "model") if field in fields]
            return f"{name} (family {numbers[0]}, model {numbers[1]})" if len(numbers) == 2 else name
    return platform.processor() or platform.machine()
