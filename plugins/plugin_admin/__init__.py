"""Plugins seen from outside: the routes and commands that list, create, enable and remove them."""
