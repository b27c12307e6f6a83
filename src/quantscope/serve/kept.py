"""The last few results of a computation. However many ask for one at the same time, it is computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Results by key, as many as there is room for; those go first that nobody asked for the longest.

    Args:
        room: the most that the sizes of all may come to.
        size: how much room a result takes.
    """

    def __init__(self, room: int, size: Callable[[T], int] = lambda result: 1) -> None:
        self._room, self._size = room, size
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._computing: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of this key; who asks while it is being computed waits for it. A failure is not kept."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            computing = self._computing.setdefault(key, Lock())
        with computing:
            with self._lock:
                if key in self._results:
                    return self._results[key]
            try:
                result = compute()
            finally:
                with self._lock:
                    self._computing.pop(key, None)
            with self._lock:
                self._results[key] = result
                while sum(map(self._size, self._results.values())) > self._room:
                    self._results.popitem(last=False)
        return result
