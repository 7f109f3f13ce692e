"""The network drivers "host" and "null"."""
