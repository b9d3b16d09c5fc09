"""`paretune track`: what logs hold, told to trackers afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from paretune.cli.printing import say
from paretune.core.user_folders import look_in


def track(folder: Path, *, to: Annotated[list[str], Parameter(negative=())]) -> int:
    """Tell a tracker of a study's training, from the logs in its folder. Nothing is trained, and nothing told twice.

    Args:
        folder: Folder of a study.
        to: A tracker: mlflow, tensorboard, trackio, wandb, or module:Class; may be given several times.

    Example:
        paretune track results/mine --to tensorboard
    """
    from paretune.benchmark.tracked import track as track_study
    from paretune.report.wording import count

    look_in(os.getcwd())  # a user's module:Class lies beside them, not beside this program
    say(f"{count(track_study(folder, to), 'update')} forwarded")
    return 0
