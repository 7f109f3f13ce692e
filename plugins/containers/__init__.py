"""Containers: their records, their lives, and the API over them."""
