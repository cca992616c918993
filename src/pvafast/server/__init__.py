"""The server: PVs with values, handlers and access checks, for any number of clients."""

from .pv import PV
from .requests import Call, Peer, Process, Put, Refused
from .server import Provider, Server
from .session import ConnectionInfo

__all__ = ["PV", "Call", "ConnectionInfo", "Peer", "Process", "Provider", "Put", "Refused", "Server"]
