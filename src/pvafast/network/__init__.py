"""What client and server share of the network: the loop that they run on, TCP streams, addresses, UDP."""
