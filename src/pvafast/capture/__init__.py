"""Recorded network traffic: pcap and pcapng files -> packets -> TCP streams and UDP datagrams -> PVA messages."""

from .events import Clock, Closed, Connection, Damage, Data, Datagram, Event, Gap, Opened
from .files import Capture
from .frames import FrameFiles
from .records import Record, Records, read
from .traffic import Statistics, Traffic

__all__ = [
    "Capture",
    "Clock",
    "Closed",
    "Connection",
    "Damage",
    "Data",
    "Datagram",
    "Event",
    "FrameFiles",
    "Gap",
    "Opened",
    "Record",
    "Records",
    "Statistics",
    "Traffic",
    "read",
]
