"""What client and server share of the network: the loop that they run on, TCP streams, addresses, UDP."""

from .addresses import Address, Endpoint
from .config import ClientConfig, ServerConfig

__all__ = ["Address", "ClientConfig", "Endpoint", "ServerConfig"]
