"""Image and container file systems on overlayfs."""
