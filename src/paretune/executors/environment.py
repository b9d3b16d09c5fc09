"""What a job runs on: versions and hardware, by an allow-list, so that nothing private is recorded."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from paretune.core.digests import digest, file_digest
from paretune.core.version import VERSION
from paretune.executors.cores import cores

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "moocore", "safetensors")
DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder a GPU, where NVIDIA's driver for Linux shows them
PATIENCE_SECONDS = 10.0  # nvidia-smi wakes a sleeping GPU, which takes seconds; longer, and it hangs


@lru_cache
def environment(threads: int) -> dict[str, object]:
    """Return versions and hardware; nothing is imported to find them.

    Args:
        threads: Threads each worker computes with.
    """
    return {
        "paretune": VERSION,
        "code": _code(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": cores(),
        "threads_per_worker": threads,
        "gpu": gpu(),
    }


def _code() -> str:
    """Digest this library's own code, which between two releases has one version and many states."""
    root = Path(__file__).parents[1]
    return digest({file.relative_to(root).as_posix(): file_digest(file) for file in root.rglob("*.py")}, 12)


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


def gpu(driver: Path = DRIVER) -> str:
    """Name the first GPU torch may use; empty without one.

    Where torch is not imported yet the driver is asked, and where a container hides the driver's files, `nvidia-smi`.

    Args:
        driver: Folder with one folder a GPU, each with a file `information` that has a line `Model: ...`.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):  # how a user hides every GPU from torch
        return ""
    return next(iter(_driver_models(driver) or _asked_models()), "")


def _driver_models(driver: Path) -> list[str]:
    try:
        files = [file.read_text(encoding="utf-8") for file in sorted(driver.glob("*/information"))]
    except OSError:
        return []
    parts = [line.partition(":") for text in files for line in text.splitlines()]
    return [model.strip() for key, _, model in parts if key.strip() == "Model"]


def _asked_models() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run(
            [command, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
