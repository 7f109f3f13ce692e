"""The FastAPI host: sockets, TLS, HTTP, versions, routes and errors of the Engine API."""
