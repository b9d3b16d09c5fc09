"""Reward functions with TRL's signature: found by `module:function`, called with columns, sync or async."""

from __future__ import annotations

import asyncio
import atexit
import copy
import functools
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from paretune.core.errors import TaskError
from paretune.core.task import Objective, Row
from paretune.core.user_calls import described
from paretune.objectives.user_modules import load_attribute

RewardFunction = Callable[..., object]  # called by keyword; returns the rewards or an awaitable of them
UNCHANGEABLE = frozenset({str, int, float, bool, bytes, complex, type(None)})  # values that are shared, not copied
RESERVED_COLUMNS = ("prompt", "prompts", "completion", "completions", "completion_ids")  # names TRL passes itself


def load_function(objective: Objective) -> RewardFunction:
    """Import the function of an objective.

    Raises:
        TaskError: If its module cannot be imported, or what it names cannot be called.
        UnknownNameError: If its module has no such function.
    """
    folder = Path(objective.import_path) if objective.import_path else None
    function = load_attribute(objective.reward, folder, [Path(folder or "", each) for each in objective.depends])
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
    """Call a reward function with lists of its own, nested ones too; one without `**columns` gets only what it names.

    Returns:
        What it returned: the rewards, or an awaitable of them.

    Raises:
        TaskError: If a value of a column cannot be copied.
    """
    texts = {"prompts": list(prompts), "completions": list(completions)}
    arguments: dict[str, object] = {name: value for name, value in texts.items() if _accepts(function, name)}
    flat: dict[int, bool] = {}
    for name, values in columns.items():
        if _accepts(function, name):
            try:
                arguments[name] = copied(values, flat)
            except Exception as error:  # a class of a user's may do anything
                raise TaskError(
                    f"column '{name}' must hold values that can be copied, got {described(error)}. Keep text, numbers, "
                    "lists and mappings in it."
                ) from error
    return function(**arguments)


def copied(value: Any, flat: dict[int, bool]) -> Any:
    """Copy lists and mappings to their depth; what cannot be changed is shared.

    Args:
        value: The value.
        flat: Which lists and mappings, by `id`, hold nothing that can be changed; filled here, as a row comes up often.

    Example:
        >>> row = {"words": ["a", "b"]}
        >>> again = copied(row, {})
        >>> again["words"].pop(), row
        ('b', {'words': ['a', 'b']})
    """
    kind = type(value)
    if kind in UNCHANGEABLE:
        return value
    if kind is not list and kind is not dict:
        return copy.deepcopy(value)
    if id(value) not in flat:
        flat[id(value)] = UNCHANGEABLE.issuperset(map(type, value if kind is list else value.values()))
    if flat[id(value)]:
        return value.copy()
    if kind is list:
        return [copied(each, flat) for each in value]
    return {name: copied(each, flat) for name, each in value.items()}


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


def gather(awaitables: Sequence[Awaitable[object]]) -> list[object]:
    """Wait for all of them at once; what one raises is its result.

    The event loop lives as long as the process, in a thread of its own: clients that a user keeps between calls stay
    usable, and it works where a loop is already running, as in notebooks.
    """
    if not awaitables:
        return []

    async def settle() -> list[object]:
        return list(await asyncio.gather(*map(_settled, awaitables)))

    return _run(settle())


async def _settled(awaitable: Awaitable[object]) -> object:
    try:
        return await awaitable
    except BaseException as error:  # noqa: BLE001  # it would end the thread; a real Ctrl-C is the main thread's
        return error


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
