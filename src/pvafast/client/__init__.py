"""The client: search."""
