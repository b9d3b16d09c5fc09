"""Questions about models, answered by a process of its own where this one has not imported torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretune.core.errors import ModelError


def ask(module: str, question: object, what: str) -> Any:
    """Let a module of this package answer in a process of its own.

    Args:
        module: One that ends with `answer_here`.
        question: What to ask, as plain data.
        what: What is loaded to answer it, for the message.

    Raises:
        ModelError: If the process dies.
    """
    source = str(Path(__file__).parents[2])
    paths = [source, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", module, json.dumps(question)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"{what} must load in a process of their own, got exit code {done.returncode} ({last}). Load them with "
            "transformers to see why."
        )
    return json.loads(done.stdout.splitlines()[-1])


def answer_here(answer: Callable[[Any], object]) -> None:
    """Answer the question that this process was started with."""
    sys.stdout.write("\n" + json.dumps(answer(json.loads(sys.argv[1]))))
