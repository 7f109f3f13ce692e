"""Plugins in a process of their own, in any language: `config.json` + `rootfs`, and old-style sockets."""
