"""What a study ran on: versions and hardware, by an allow-list, so that nothing private is recorded."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from functools import lru_cache

import paretune
from paretune.benchmark.executors import cores

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "peft", "moocore", "safetensors")


@lru_cache
def environment() -> dict[str, object]:
    """Return versions and hardware; nothing is imported to find them."""
    return {
        "paretune": paretune.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": cores(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or cores(),
        "gpu": _gpu(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def _gpu() -> str:
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else ""
