"""What the fuzzer starts from, for connections in the middle of their work: the same in one piece, in pieces, and received in place."""

from __future__ import annotations

import midway
import midwayseeds


def test_client() -> None:
    for data, big in midwayseeds.client_seeds():
        midway.open_client(data, "big" if big else "little")
    pool = midway.pool().statistics
    assert pool.taken >= 32
    assert pool.in_use == 0


def test_server() -> None:
    for data, big in midwayseeds.server_seeds():
        midway.open_server(data, "big" if big else "little")
