"""Every cap on what bytes from outside can cause, each with the attack that it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps for one codec or connection. Raise one by name: ``Limits(message=4 << 30)``.

    A value above a cap is a `LimitExceeded` that names the cap.
    """

    # A header can announce 4 GiB; the buffer is reserved, and touched only as bytes come. Also what a server's connection
    # holds for its client: names of channels, pvRequests, and requests that wait for their answers.
    message: int = 1 << 30
    # Each level costs two bytes on the wire and a stack frame here. Types and values counted together, as pvxs does.
    depth: int = 20
    # A chain of FE references describes 2**n nodes in 14 n bytes: nodes are counted expanded.
    type_nodes: int = 16_384
    # An element of a structure with 16,384 members of no bytes each costs one byte on the wire.
    value_nodes: int = 1_000_000
    # A structure array of null elements costs one byte each on the wire and eight here. Also string, union and any arrays.
    elements: int = 262_144
    # A string is copied while it is decoded.
    string: int = 16 << 20
    # 65,536 ids times 16,384 nodes would be a billion nodes held for the life of the connection.
    registry_nodes: int = 1_000_000
    # Empty segments cost eight bytes on the wire and never end.
    segments: int = 65_536
    # A peer can create channels and operations without end.
    channels: int = 100_000
    operations: int = 100_000
    # Python objects weigh more than their bytes on the wire: objects made for one message may weigh
    # 1 MiB + `expansion` times its bytes.
    expansion: int = 128

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Limits.{name} must be a positive int, not {value!r}")
        if self.depth > 100:
            raise ValueError("Limits.depth above 100 would risk the stack")
