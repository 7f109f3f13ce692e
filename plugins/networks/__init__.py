"""Network objects, address management, sandboxes and service discovery."""
