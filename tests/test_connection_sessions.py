"""The two ends of a connection follow what recorded peers said to each other, and would have said the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import corpus
from corpus import Session, Talk
from pvafast import LocalProtocolError, ProtocolError, connection, messages
from pvafast._backend import framing
from pvafast.connection import ClientConnection, Observer, ServerConnection
from pvafast.messages import Command

# spvirit refuses a channel with a warning; this client took that for a yes, and asked on.
TAKEN_FOR_A_YES = "p4pcli_spviritsrv_fail"
SESSIONS = [session for session in corpus.sessions().values() if session.talks]
# caproto's first ioid is 0.
FOLLOWED = [s for s in SESSIONS if s.name != TAKEN_FOR_A_YES and s.client != "caproto"]
# It searches over TCP in big-endian, whatever the server asks for.
BETWEEN_TWO_P4P = [
    s for s in SESSIONS if s.client == s.server == "p4p" and not s.name.startswith("tcpsearch")
]


def request_of(event: Any) -> messages.PvaMessage | None:
    """What a client has sent when a server is told this."""
    match event:
        case connection.ChannelRequested():
            return messages.CreateChannel(channels=((event.cid, event.name),))
        case connection.ChannelClosed():
            assert event.channel.sid is not None
            return messages.DestroyChannel(sid=event.channel.sid, cid=event.channel.cid)
        case connection.OperationRequest() | connection.Received():
            return event.message
    assert isinstance(event, connection.Credentials)
    return None


def reply_of(event: Any) -> messages.PvaMessage | None:
    """What a server has sent when a client is told this, if it did so by itself."""
    match event:
        case connection.Validated():
            return messages.ConnectionValidated(status=event.status)
        case connection.ChannelOpened():
            assert event.channel.sid is not None
            return messages.CreateChannelReply(cid=event.channel.cid, sid=event.channel.sid)
        case connection.ChannelFailed():
            return messages.CreateChannelReply(cid=event.channel.cid, status=event.status)
        case connection.ChannelClosed(by_peer=True):
            assert event.channel.sid is not None
            return messages.DestroyChannel(sid=event.channel.sid, cid=event.channel.cid)
        case connection.OperationReply() | connection.Update() | connection.Received():
            return event.message
    assert isinstance(event, connection.Greeted | connection.EchoReply | connection.ChannelClosed)
    return None


def pieces(data: bytes, rng: random.Random | None) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        step = rng.choice((1, 2, 7, 100, 5000)) if rng else len(data)
        yield data[at : at + step]
        at += step


class Puppets:
    """A client and a server; what a recorded peer sent to one of them, the other one is made to send."""

    def __init__(self, talk: Talk, rng: random.Random | None = None) -> None:
        self.client = ClientConnection(user="me")
        self.server = ServerConnection(byteorder="big" if talk.streams["server"][2] & 0x80 else "little")
        self.server.data_to_send()
        self.sent: dict[str, list[Any]] = {"client": [], "server": []}
        for role, data in talk.chunks:
            for piece in pieces(data, rng):
                self.say(role, piece)

    def say(self, role: str, data: bytes) -> None:
        listener, speaker, said = (
            (self.server, self.client, request_of)
            if role == "client"
            else (self.client, self.server, reply_of)
        )
        for event in self.hear(listener, data):
            assert repr(event)
            message = said(event)
            if message is not None:
                self.sent[role] += speaker.send(message)  # type: ignore[attr-defined]
        listener.data_to_send()  # type: ignore[attr-defined]

    def hear(self, listener: Any, data: bytes) -> Iterator[Any]:
        """The events of one end."""
        listener.receive_data(data)
        yield from listener.events()

    def end(self) -> None:
        for end in (self.client, self.server):
            end.receive_eof()  # type: ignore[attr-defined]
            assert list(end.events()) == [connection.ConnectionEnded()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("session", FOLLOWED, ids=str)
def test_both_ends_follow(session: Session) -> None:
    for talk in session.talks:
        Puppets(talk).end()


@pytest.mark.parametrize("session", [s for s in FOLLOWED if len(s.files["capture.pcap"]) < 60_000], ids=str)
def test_in_pieces(session: Session) -> None:
    rng = random.Random(session.name)
    for talk in session.talks:
        Puppets(talk, rng).end()


@pytest.mark.parametrize("session", BETWEEN_TWO_P4P, ids=str)
def test_they_say_the_same(session: Session) -> None:
    """Neither end of p4p numbers its types: what our ends send is what was recorded, but for the handshake."""
    for talk in session.talks:
        puppets = Puppets(talk)
        for role, sent in puppets.sent.items():
            framer = framing.Framer(from_server=role == "server")
            framer.receive_data(talk.streams[role])
            recorded = [
                (message.command, bytes(message.payload))
                for message in framer.messages()
                if not message.is_control
                and message.command not in (Command.CONNECTION_VALIDATION, Command.ECHO)
            ]
            framer = framing.Framer(from_server=role == "server")
            framer.receive_data(b"".join(sent))
            ours = [(message.command, bytes(message.payload)) for message in framer.messages()]
            # p4p destroys operations whose INIT has failed, too: that is not told to whoever uses a ServerConnection.
            needless = [m for m in recorded if m[0] == Command.DESTROY_REQUEST and m not in ours]
            # A channel that is closed is confirmed by the ServerConnection itself.
            confirmed = [
                m for m in recorded if role == "server" and m[0] == Command.DESTROY_CHANNEL and m not in ours
            ]
            assert ours == [m for m in recorded if m not in needless and m not in confirmed], role


@pytest.mark.parametrize("session", [s for s in SESSIONS if s.client == "caproto"], ids=str)
def test_caproto_asks(session: Session) -> None:
    """Its first ioid is 0, which ClientConnection does not use; to a ServerConnection it is a number like others."""
    for talk in session.talks:
        server, observer = ServerConnection(), Observer()
        asked = []
        for role, data in talk.chunks:
            if role == "client":
                server.receive_data(data)
                asked += [e for e in server.events() if isinstance(e, connection.OperationRequest)]
            observer.receive_data(role, data)
            for event in observer.events():
                answers = (messages.Reply, messages.CreateChannelReply, messages.ConnectionValidated)
                if isinstance(event.message, answers):
                    server.send(event.message)
        assert asked
        assert asked[0].operation.ioid == 0


def test_spvirit_refuses() -> None:
    session = corpus.sessions()[TAKEN_FOR_A_YES]
    client = ClientConnection()
    raw = session.talks[0].streams["server"]
    reply = raw.index(b"PV not found")
    client.receive_data(raw[: reply - 18])
    list(client.events())
    client.send(messages.CreateChannel(channels=((0x12345678, "no:such"),)))
    client.receive_data(raw[reply - 18 :])
    failed = next(client.events())
    assert isinstance(failed, connection.ChannelFailed)
    assert failed.status.message == "PV not found"
    assert not client.channels


@pytest.mark.parametrize("seed", range(4))
def test_damaged(seed: int) -> None:
    """Whatever happens to what the peer said: the events up to there, and a ProtocolError."""
    rng = random.Random(seed)
    for session in rng.sample([s for s in SESSIONS if len(s.files["capture.pcap"]) < 20_000], 12):
        talk = session.talks[0]
        for victim in ("client", "server"):
            chunks = []
            for role, data in talk.chunks:
                if role == victim and rng.random() < 0.3:
                    damaged = bytearray(data)
                    for _ in range(rng.randint(1, 3)):
                        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                    data = bytes(damaged)
                chunks.append((role, data))
            client, server = ClientConnection(), ServerConnection()
            ends = {"client": server, "server": client}
            for role, data in chunks:
                listener = ends[role]
                if listener.closed:
                    continue
                try:
                    listener.receive_data(data)
                    for event in listener.events():
                        follow(client, server, event)
                except ProtocolError:
                    assert listener.closed
                listener.data_to_send()


def follow(client: ClientConnection, server: ServerConnection, event: Any) -> None:
    """Do as the peer of who was told this, as far as that is allowed."""
    for speaker, said in ((client, request_of), (server, reply_of)):
        try:
            message = said(event)
        except AssertionError:
            continue
        if message is not None:
            try:
                speaker.send(message)  # type: ignore[attr-defined]
            except (LocalProtocolError, ValueError):
                pass
