"""What the engine says of itself: ping, version, info, events, disk usage."""
