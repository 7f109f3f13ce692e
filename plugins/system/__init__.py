"""What the engine says of itself: version, info, events, disk usage."""
