"""A managed plugin as a container: its config and settings turned into what a runtime takes.

Source of the defaults: Docker's "Plugin Config Version 1 of Plugin V2". Unlike there, `network: bridge` gives a real network,
`user` is honoured, and the default seccomp profile (which goes by the capabilities) applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.contracts.container_config import ContainerConfig, DeviceMapping, HostConfig
from kernel.contracts.containers import ContainerRecord
from kernel.contracts.managed import ManagedPlugin
from kernel.contracts.runtime import OciMount, OciSpec
from kernel.errors import InvalidParameter
from kernel.managed import schema

SOCKETS_INSIDE = "/run/docker/plugins"
SHARED_INSIDE = "/run/docker/logging"
SECRETS_INSIDE = "/run/secrets"
_BIND = ("rbind", "rw", "rprivate")


@dataclass(frozen=True, slots=True)
class Sites:
    """Where one plugin's things lie on the host.

    Attributes:
        data: its folder under the data root.
        run: its folder under the exec root; its name is short, since a socket's path has at most 107 bytes.
    """

    data: Path
    run: Path

    @property
    def bundle(self) -> Path:
        """The runtime's."""
        return self.run / "bundle"

    @property
    def sockets(self) -> Path:
        """Bound to /run/docker/plugins."""
        return self.run / "s"

    @property
    def shared(self) -> Path:
        """Bound to /run/docker/logging."""
        return self.run / "logging"

    @property
    def secrets(self) -> Path:
        """A tmpfs, bound to /run/secrets."""
        return self.run / "secrets"

    @property
    def empty(self) -> Path:
        """Stands for a mount's source that is set to nothing."""
        return self.run / "empty"

    @property
    def propagated(self) -> Path:
        """What the plugin mounts below its propagated mount shows here."""
        return self.data / "propagated-mount"

    @property
    def output(self) -> Path:
        """What its process writes."""
        return self.data / "output.log"


def network_mode(config: schema.PluginConfig) -> str:
    """ "host", "bridge" or "none"."""
    return config.Network.Type if config.Network.Type in ("host", "bridge") else "none"


def record(plugin: ManagedPlugin, runtime: str, secret_env: list[str]) -> ContainerRecord:
    """The plugin as a container's record; the runtime makes its usual spec of it."""
    config = schema.model(plugin.Config)
    words = [*config.Entrypoint, *plugin.Settings.get("Args", ())]
    devices = [device for device in plugin.Settings.get("Devices", ()) if device.get("Path")]
    user = config.User
    return ContainerRecord(
        Id=plugin.Id,
        Name=plugin.Name,
        Created=plugin.Created,
        ImageID="",
        ImageRef=plugin.Name,
        Driver=plugin.Driver,
        Runtime=runtime,
        Path=words[0],
        Args=words[1:],
        Config=ContainerConfig(
            Hostname=plugin.Id[:12],
            User=f"{user.UID}:{user.GID}" if user.UID or user.GID else "",
            Env=[*plugin.Settings.get("Env", ()), *secret_env],
            WorkingDir=config.WorkDir,
        ),
        HostConfig=HostConfig(
            NetworkMode=network_mode(config),
            IpcMode="host" if config.IpcHost else "private",
            PidMode="host" if config.PidHost else "",
            CapAdd=config.Linux.Capabilities,
            Devices=[
                DeviceMapping(PathOnHost=device["Path"], PathInContainer=device["Path"], CgroupPermissions="rwm")
                for device in devices
            ],
            DeviceCgroupRules=["a *:* rwm"] if config.Linux.AllowAllDevices else [],
            # A profile for containers would keep plugins from mounting, which is what many are for.
            SecurityOpt=["apparmor=unconfined"],
        ),
    )


def mounts(plugin: ManagedPlugin, sites: Sites) -> list[OciMount]:
    """What is mounted into it. Raises InvalidParameter for a mount whose source nobody has set."""
    config = schema.model(plugin.Config)
    found = [
        OciMount(SOCKETS_INSIDE, str(sites.sockets), options=_BIND),
        OciMount(SHARED_INSIDE, str(sites.shared), options=_BIND),
    ]
    if config.PropagatedMount:
        found.append(OciMount(config.PropagatedMount, str(sites.propagated), options=("rbind", "rw", "rshared")))
    if config.Secrets:
        found.append(OciMount(SECRETS_INSIDE, str(sites.secrets), options=("rbind", "ro", "rprivate")))
    for entry in plugin.Settings.get("Mounts", ()):
        mount = schema.MountSpec.model_validate(entry)
        if mount.Source is None:
            raise InvalidParameter(
                f"plugin {plugin.Name}: the source of mount {mount.Name or mount.Destination!r} is not set:"
                f" docker plugin set {plugin.Name} {mount.Name}.source=PATH"
            )
        options = tuple(mount.Options) or (("rbind",) if mount.Type in ("", "bind") else ())
        bound = {"bind", "rbind"} & set(options)
        source = mount.Source or (str(sites.empty) if bound else "none")
        found.append(OciMount(mount.Destination, source, mount.Type or "bind", options))
    return found


def shape(plugin: ManagedPlugin, spec: OciSpec) -> None:
    """What a plugin's spec has beyond a container's, in place."""
    config = schema.model(plugin.Config)
    capabilities = spec["process"]["capabilities"]
    names = list(capabilities["bounding"])
    asked = [
        name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}" for name in config.Linux.Capabilities
    ]
    inherited = [name for name in names if name in asked]
    if config.User.UID:
        # Without ambient ones, a user other than root would lose on execve what the operator has granted.
        capabilities.update(effective=inherited, permitted=inherited, inheritable=inherited, ambient=inherited)
    else:
        capabilities.update(effective=names, permitted=names, inheritable=inherited)
    if config.PropagatedMount:
        spec["linux"]["rootfsPropagation"] = "rshared"
    namespaces = spec["linux"]["namespaces"]
    if network_mode(config) != "host" and not any(each["type"] == "network" for each in namespaces):
        namespaces.append({"type": "network"})
