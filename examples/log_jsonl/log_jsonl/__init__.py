"""The log driver "jsonl": an example of replacing the engine's own."""
