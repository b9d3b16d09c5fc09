"""How many bytes of tensors a computation holds at once, counted alike on every device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class TensorMemory(TorchDispatchMode):
    """Counts the storage of all tensors that operations within it read or make; a storage that views share counts once.

    What was there before, such as parameters, counts from the start on, once an operation has read it. Every operation
    passes through Python meanwhile, so nothing is to be timed within. On a processor torch's own allocator keeps no
    count, a process's high-water mark holds what ran before, and `tracemalloc` does not see tensors.

    What is not counted: what a kernel allocates within one operation, the allocator's gaps, and Python's objects. An
    array of NumPy's that becomes a tensor within passes for one that was there before.

    Attributes:
        peak_bytes: The most bytes that were held at once.

    Example:
        >>> with TensorMemory() as memory:
        ...     twice = torch.ones(100) * 2  # the ones go when they have been read
        ...     sum = twice.view(10, 10).sum()
        >>> memory.peak_bytes
        800
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes, self._held_bytes = 0, 0
        self._held: dict[int, tuple[int, object]] = {}  # identity of a storage -> its bytes, what hears of its end

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and look at its arguments and results."""
        given = kwargs or {}
        made_of_python = func is torch.ops.aten.lift_fresh.default  # `torch.tensor` shows what it made as an argument
        self._see((args, *given.values()), before=not made_of_python)
        results = func(*args, **given)
        self._see((results,), before=False)
        return results

    def _see(self, values: Iterable[object], before: bool) -> None:
        for tensor in _tensors(values):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._held:
                continue
            size = storage.nbytes()
            self._held[key] = size, weakref.ref(storage, partial(self._release, key))
            self._held_bytes += size
            if before:  # no operation made it: it was held at every moment that has been counted
                self.peak_bytes += size
            self.peak_bytes = max(self.peak_bytes, self._held_bytes)

    def _release(self, key: int, ended: object) -> None:
        self._held_bytes -= self._held.pop(key)[0]


def _tensors(values: Iterable[object]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
