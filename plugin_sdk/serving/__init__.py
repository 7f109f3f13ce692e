"""A driver class as a plugin of its own: Docker's plugin protocol on a unix socket.

    from plugin_sdk import serve

    serve(MyVolumes(Path("/data")))

The class is the one that would be contributed through `engine_drivers`: it fulfils `VolumeDriver`, `NetworkDriver`,
`IpamDriver` or `LogDriver`, or extends `AuthorizationPlugin` or `MetricsCollector`. README.md beside this file says what
of each contract the protocol cannot carry.
"""

from plugin_sdk.serving.contracts import AuthorizationPlugin, MetricsCollector, MetricsSource
from plugin_sdk.serving.interfaces import interface_types

__all__ = ["AuthorizationPlugin", "MetricsCollector", "MetricsSource", "interface_types"]
