"""The values that a recorded session carries: of GET replies and of monitor updates."""

from __future__ import annotations

import corpus
from pvafast import Value, messages
from pvafast.connection import Observer


def values(name: str, *kinds: type) -> list[tuple[str, Value]]:
    """(PV, value) of each message of these kinds, GET replies if none is named, in their order."""
    found = []
    for talk in corpus.sessions()[name].talks:
        observer = Observer()
        for sender, data in talk.chunks:
            observer.receive_data(sender, data)
        for event in observer.events():
            if isinstance(event.message, kinds or messages.GetReply) and event.value is not None:
                found.append((event.pv, event.value))
    return found


def value(name: str, pv: str) -> Value:
    """What the GET of a PV brought."""
    (found,) = (value for its, value in values(name) if its == pv)
    return found
