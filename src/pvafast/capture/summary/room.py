"""How much is kept of anything that a peer can make endless; what does not fit is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, final

# A peer can make texts long, too.
CHARACTERS: Final = 300

_K = TypeVar("_K")
_V = TypeVar("_V")
_P = ParamSpec("_P")


@final
class Room:
    """The room of one summary. left: for small things; dropped: how often there was none."""

    __slots__ = ("dropped", "left")

    # Entries of a large table.
    MOST: Final = 100_000
    # Small things that belong to those (the clients of a name, the fields of a PV): of one thing, and of all together.
    OF_ONE: Final = 100_000
    OF_ALL: Final = 500_000

    def __init__(self) -> None:
        self.dropped = 0
        self.left: int = self.OF_ALL

    # -- large tables

    def fits(self, table: dict[_K, Any], key: _K) -> bool:
        """Whether a large table has a key, or room for it."""
        return key in table or self._counted(len(table) < self.MOST)

    def find(
        self, table: dict[_K, _V], key: _K, make: Callable[_P, _V], *args: _P.args, **kwargs: _P.kwargs
    ) -> _V | None:
        """What a large table has under a key, made if it is new; None if there is no room for it."""
        found = table.get(key)
        if found is None and self._counted(len(table) < self.MOST):
            found = table[key] = make(*args, **kwargs)
        return found

    def tally(self, table: dict[_K, int], key: _K) -> None:
        """Count something in a large table."""
        if self.fits(table, key):
            table[key] = table.get(key, 0) + 1

    # -- small things

    def any(self) -> bool:
        """Whether there is room for a small thing."""
        return self._counted(self.left > 0)

    def take(self) -> bool:
        """Take the room of a small thing; whether there was any."""
        found = self.any()
        self.left -= found
        return found

    def keep(self, table: dict[_K, Any], key: _K, content: Any = None) -> bool:
        """Put something into a small table; whether it is there."""
        if key not in table and not (self._counted(len(table) < self.OF_ONE) and self.take()):
            return False
        table[key] = content
        return True

    def remove(self, table: dict[_K, Any], key: _K) -> None:
        """Take something that may be there out of a small table."""
        if key in table:
            del table[key]
            self.left += 1

    def clear(self, table: dict[Any, Any]) -> None:
        """Empty a small table."""
        self.left += len(table)
        table.clear()

    def _counted(self, fits: bool) -> bool:
        self.dropped += not fits
        return fits
