"""The storage driver "vfs": an example of replacing the engine's own."""
