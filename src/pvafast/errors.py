"""Everything pvafast raises on purpose.

PvaError                      the root
├── ProtocolError             the peer, or a file, broke the rules
│   └── DecodeError           bytes that do not follow the rules: says what, where (field path) and at which offset
│       └── LimitExceeded     bytes that follow the rules but ask for more than `Limits` allow: names the limit
├── EncodeError (ValueError)  a Python value that does not fit the pvData type: says what and where
│   └── RangeError (OverflowError)  a number outside the range of the type
├── NormativeError            a structure that is not what its id says, a field that a normative type needs
│   └── FrameError            an NTNDArray that makes no frame: sizes, types, codecs, a library that is missing
├── RemoteError               a peer's Status: severity, message, stack
├── OperationTimeout (TimeoutError)  a request that was not answered in time: says what was waited for
├── Disconnected (ConnectionError)   the connection was lost while a request was under way that must not be sent twice
├── ClientClosed              the client was closed meanwhile, or is used afterwards
└── LocalProtocolError        the program uses the connection in a way the protocol does not allow now

Bytes from outside cause DecodeError and LimitExceeded, and nothing else.
"""

from __future__ import annotations


class PvaError(Exception):
    """The root of all errors of pvafast."""


class ProtocolError(PvaError):
    """The other side, or a recorded conversation, broke the protocol."""


class DecodeError(ProtocolError):
    """Bytes that do not follow the rules.

    reason: what was wanted and what was there. offset: index into the bytes given, of the item at fault.
    path: dotted name of the field, "" at the root.
    """

    def __init__(self, reason: str, offset: int = 0, path: str = "") -> None:
        super().__init__(reason, offset, path)
        self.reason = reason
        self.offset = offset
        self.path = path

    def within(self, name: str) -> None:
        """Put `name` in front of the path: called while the error leaves the field `name`."""
        if not self.path:
            self.path = name
        elif self.path.startswith("["):
            self.path = name + self.path
        else:
            self.path = f"{name}.{self.path}"

    def __str__(self) -> str:
        where = f" at `{self.path}`, offset {self.offset}" if self.path else f" at offset {self.offset}"
        return self.reason + where

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason, self.offset, self.path)


class LimitExceeded(DecodeError):
    """More than `Limits` allow; `limit` is the name of the limit to raise."""

    def __init__(self, reason: str, offset: int = 0, path: str = "", limit: str = "") -> None:
        super().__init__(reason, offset, path)
        self.limit = limit

    def __str__(self) -> str:
        return f"{super().__str__()} (Limits.{self.limit})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason, self.offset, self.path, self.limit)


class EncodeError(PvaError, ValueError):
    """A Python value that does not fit the pvData type. path: dotted name of the field, "" at the root."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def within(self, name: str) -> None:
        """Put `name` in front of the path: called while the error leaves the field `name`."""
        if not self.path:
            self.path = name
        elif self.path.startswith("["):
            self.path = name + self.path
        else:
            self.path = f"{name}.{self.path}"

    def __str__(self) -> str:
        return f"{self.reason} at `{self.path}`" if self.path else self.reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason, self.path)


class RangeError(EncodeError, OverflowError):
    """A number outside the range of the pvData type; also an OverflowError."""


class NormativeError(PvaError):
    """A structure that is not what its id says: names the field at fault."""


class FrameError(NormativeError):
    """An NTNDArray that makes no frame: dimensions, sizes, element types, compressed data, a library that is missing."""


class RemoteError(PvaError):
    """A Status other than OK that the peer sent. severity: "WARNING", "ERROR" or "FATAL"."""

    def __init__(self, severity: str, message: str, stack: str = "") -> None:
        super().__init__(severity, message, stack)
        self.severity = severity
        self.message = message
        self.stack = stack

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


class OperationTimeout(PvaError, TimeoutError):
    """A request on a channel that was not answered in time; also a TimeoutError.

    name: of the channel. operation: "get", "put"... timeout: seconds. server: its address, "" where none is known.
    state: what was waited for: "searching" no server has said that it has the channel; "connecting" there is a server, but
    no connection to it; "opening" it does not answer to the channel's name; "waiting" it does not answer the request;
    "disconnected" the connection was lost, and has not come back.
    reason: what went wrong last, "" if nothing did.
    """

    def __init__(
        self, name: str, operation: str, timeout: float, state: str, server: str = "", reason: str = ""
    ) -> None:
        super().__init__(name, operation, timeout, state, server, reason)
        self.name = name
        self.operation = operation
        self.timeout = timeout
        self.state = state
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        what = {
            "searching": "no server answers to the name",
            "connecting": f"no connection to {self.server}",
            "opening": f"{self.server} does not answer to the channel's name",
            "waiting": f"{self.server} is connected, but does not answer",
            "disconnected": f"the connection to {self.server} was lost and has not come back",
        }.get(self.state, self.state)
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.operation} of {self.name!r}: {what} within {self.timeout:g} s{reason}"


class Disconnected(PvaError, ConnectionError):
    """The connection was lost while a request was under way that the server may have carried out, or not.

    name: of the channel. reason: how it was lost.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name!r}: disconnected ({self.reason})"


class ClientClosed(PvaError):
    """The client was closed meanwhile, or is used after it was closed."""


class LocalProtocolError(PvaError):
    """The program asked for something that the protocol does not allow in the present state."""
