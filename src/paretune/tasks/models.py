"""Models of tasks, loaded before anything trains, so that a plan refuses what training could not use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from paretune.core.cache import cache_folder
from paretune.core.checked import note_checked, versions, was_checked
from paretune.core.digests import digest, model_digest
from paretune.core.errors import ModelError
from paretune.core.task import Task
from paretune.tasks.apart import answer_here, ask

Role = tuple[bool, str]  # whether it is a reward model, and its folder
LARGE = 2**31  # bytes of parameters: of a larger model a plan looks at names and shapes alone, it must not take minutes


def check_models(tasks: Iterable[Task]) -> None:
    """Check that base models and reward models of tasks are whole and of kinds that work.

    A folder is loaded once on this machine, in a process of its own where this one has not imported torch. Models that
    ship with the package, or were drawn by it, are known to work. Of folders of more than 2 GiB names and shapes of
    parameters are checked; their numbers, and models of hub ids, are when they are loaded for training.

    Raises:
        ModelError: If one is not.
    """
    roles: dict[Role, None] = {}
    for task in tasks:
        roles[False, task.model] = None
        for objective in (*task.objectives, *task.audit):
            if objective.kind == "model":
                roles[True, objective.reward] = None
    unknown = [role for role in roles if _is_unknown(role)]
    if not unknown:
        return
    said = _check(unknown) if "torch" in sys.modules else _check_apart(unknown)
    if said:
        raise ModelError(said)
    for role in unknown:
        note_checked("models", _key(role))


def _is_unknown(role: Role) -> bool:
    folder = Path(role[1]).expanduser()
    if not folder.is_dir() or any(
        folder.is_relative_to(each) for each in (Path(__file__).parents[1], cache_folder("controlled"))
    ):
        return False
    return not was_checked("models", _key(role))


def _key(role: Role) -> str:
    return digest([role[0], model_digest(role[1]), versions()])


def _check(roles: Sequence[Role]) -> str:
    """Return what is wrong with the first model that cannot be used, or nothing."""
    from paretune.models.loading import load_base, look_at_base
    from paretune.objectives.reward_models import RewardModel

    try:
        for is_reward, folder in roles:
            large = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) > LARGE
            if is_reward:
                RewardModel(folder)
            elif large:
                look_at_base(folder)
            else:
                load_base(folder, device="cpu")
    except ModelError as error:
        return str(error)
    return ""


def _check_apart(roles: Sequence[Role]) -> str:
    return str(ask(__name__, roles, f"models {', '.join(folder for _, folder in roles)}"))


if __name__ == "__main__":
    answer_here(_check)
