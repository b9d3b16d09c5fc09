"""Reward functions with TRL's signature: found by `module:function`, called with columns, sync or async."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretune.core.errors import TaskError
from paretune.core.task import Objective, Row
from paretune.objectives.user_modules import load_attribute

RewardFunction = Callable[..., object]  # called by keyword; returns the rewards or an awaitable of them
RESERVED_COLUMNS = ("prompt", "prompts", "completion", "completions", "completion_ids")  # names TRL passes itself


def load_function(objective: Objective) -> RewardFunction:
    """Import the function of an objective.

    Raises:
        TaskError: If its module cannot be imported, or what it names cannot be called.
        UnknownNameError: If its module has no such function.
    """
    function = load_attribute(objective.reward, Path(objective.import_path) if objective.import_path else None)
    if isinstance(function, type) or not callable(function):
        raise TaskError(
            f"reward of objective '{objective.name}' must be a function, got {type(function).__name__} "
            f"'{objective.reward}'. Name a function (prompts, completions, **columns)."
        )
    return function


def columns_of(rows: Sequence[Row]) -> dict[str, list[object]]:
    """Turn the rows of a batch into one list per column, as reward functions get them.

    A row without a column counts as None there. `prompt` and `completion` and their relatives are left out: they are
    arguments of their own.

    Example:
        >>> columns_of([{"prompt": "Hi.", "answer": 4}, {"prompt": "Ho."}])
        {'answer': [4, None]}
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in RESERVED_COLUMNS)
    return {name: [row.get(name) for row in rows] for name in names}


def call_function(
    function: RewardFunction, prompts: Sequence[str], completions: Sequence[str], columns: dict[str, list[object]]
) -> object:
    """Call a reward function with fresh lists; one without `**columns` gets only what it names.

    Returns:
        What it returned: the rewards, or an awaitable of them.
    """
    arguments: dict[str, object] = {"prompts": list(prompts), "completions": list(completions)}
    arguments |= {name: list(values) for name, values in columns.items()}
    return function(**{name: value for name, value in arguments.items() if _accepts(function, name)})


def _accepts(function: RewardFunction, name: str) -> bool:
    named, takes_all = _parameters(function)
    return takes_all or name in named


def _parameters(function: RewardFunction) -> tuple[frozenset[str], bool]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some compiled functions tell nothing about themselves
        return frozenset(), True
    named = frozenset(parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


@dataclass(frozen=True)
class _Stop:
    """Carries KeyboardInterrupt or SystemExit out of the thread of the event loop, which it would end."""

    error: BaseException


def gather(awaitables: Sequence[Awaitable[object]]) -> list[object]:
    """Wait for all of them at once; what one raises is its result, except a wish to stop.

    The event loop lives as long as the process, in a thread of its own: clients that a user keeps between calls stay
    usable, and it works where a loop is already running, as in notebooks.
    """
    if not awaitables:
        return []

    async def settle() -> list[object]:
        return list(await asyncio.gather(*map(_settled, awaitables), return_exceptions=True))

    results = _run(settle())
    for result in results:
        if isinstance(result, _Stop):
            raise result.error
    return results


async def _settled(awaitable: Awaitable[object]) -> object:
    try:
        return await awaitable
    except (KeyboardInterrupt, SystemExit) as error:
        return _Stop(error)


def _run(coroutine: Coroutine[object, object, list[object]]) -> list[object]:
    return asyncio.run_coroutine_threadsafe(coroutine, _event_loop(os.getpid())).result()


@functools.lru_cache(maxsize=1)
def _event_loop(process: int) -> asyncio.AbstractEventLoop:
    """Start the event loop of a process; threads do not survive a fork, so a child starts its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="paretune-rewards", daemon=True)
    thread.start()

    def close() -> None:
        if os.getpid() == process:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    atexit.register(close)
    return loop
