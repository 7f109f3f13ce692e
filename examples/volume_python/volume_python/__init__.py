"""A volume driver."""
