"""The embedded counselling task: client statements and counsellor replies, both written by a generator of ours."""

from __future__ import annotations

from pathlib import Path

from paretune.core.digests import model_digest
from paretune.core.errors import ModelError
from paretune.core.task import SPLITS, Objective, Task
from paretune.objectives import OBJECTIVES

MODEL = Path(__file__).parent / "base"  # trained by recipes/counselling_models


def load() -> Task:
    """Return the task: reply to a client's statement with reflection, empathy and brevity, which competes with both.

    Raises:
        ModelError: If the embedded model is missing, as in a checkout without its large files.
    """
    from paretune.tasks.counselling.text import prompts

    if not MODEL.is_dir():
        raise ModelError(
            f"model of the counselling task must lie in {MODEL}, got no such folder. Install the package again, or "
            "train the model with recipes/counselling_models."
        )
    return Task(
        name="counselling",
        source="counselling",
        model=str(MODEL),
        model_digest=model_digest(str(MODEL)),
        template="Client: {prompt}\nCounselor:",
        splits={split: tuple(prompts(split)) for split in SPLITS},
        objectives=(
            Objective("reflection", OBJECTIVES["reflection"], pass_threshold=0.6),
            Objective("empathy", OBJECTIVES["empathy"], pass_threshold=0.6),
            Objective("brevity", OBJECTIVES["brevity"], pass_threshold=0.5),
        ),
        audit=(Objective("fluency", OBJECTIVES["fluency"]),),
        reference_point=(0.0, 0.0, 0.0),
        beta=0.05,
        max_prompt_tokens=96,
        max_completion_tokens=32,
    )
