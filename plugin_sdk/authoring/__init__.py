"""What `engine plugin init` and `engine plugin build` do."""
