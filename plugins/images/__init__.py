"""Images: what they are made of, their names, and the ways in and out."""
