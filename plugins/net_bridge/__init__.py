"""The network driver "bridge"."""
