"""What a client asks of a container: the API's `ContainerConfig`, `HostConfig` and `NetworkingConfig`.

Source: Docker Engine API v1.25 and v1.51, definitions of the same names.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from kernel.contracts.common import Wire


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StrList = Annotated[list[str], BeforeValidator(_as_list)]
"""A list that clients may also send as one string."""


class HealthConfig(Wire):
    """Times are nanoseconds; 0 means inherit or default."""

    Test: list[str] = []
    Interval: int = 0
    Timeout: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0
    Retries: int = 0


class ContainerConfig(Wire):
    """The portable part: also what an image carries as its defaults."""

    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, dict[str, Any]] = {}
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] = []
    Cmd: StrList | None = None
    Healthcheck: HealthConfig | None = None
    ArgsEscaped: bool = False
    Image: str = ""
    Volumes: dict[str, dict[str, Any]] = {}
    WorkingDir: str = ""
    Entrypoint: StrList | None = None
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: list[str] = []
    Labels: dict[str, str] = {}
    StopSignal: str = ""
    StopTimeout: int | None = None
    Shell: list[str] = []


class LogChoice(Wire):
    """Log driver and its options; an empty type means the daemon's default."""

    Type: str = ""
    Config: dict[str, str] = {}


class PortBinding(Wire):
    """Empty HostPort: an ephemeral one."""

    HostIp: str = ""
    HostPort: str = ""


class RestartRule(Wire):
    """Name: "", "no", "always", "unless-stopped" or "on-failure"."""

    Name: str = ""
    MaximumRetryCount: int = 0


class DeviceMapping(Wire):
    """A host device inside the container; permissions are letters of "rwm"."""

    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class Ulimit(Wire):
    """A resource limit; -1 is unlimited."""

    Name: str = ""
    Soft: int = 0
    Hard: int = 0


class ThrottleDevice(Wire):
    """Bytes or operations per second of one block device."""

    Path: str = ""
    Rate: int = 0


class WeightDevice(Wire):
    """Weight of one block device."""

    Path: str = ""
    Weight: int = 0


class BindMountOptions(Wire):
    """Options of a bind mount."""

    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class DriverChoice(Wire):
    """A driver and its options."""

    Name: str = ""
    Options: dict[str, str] = {}


class VolumeMountOptions(Wire):
    """Options of a volume mount."""

    NoCopy: bool = False
    Labels: dict[str, str] = {}
    DriverConfig: DriverChoice | None = None
    Subpath: str = ""


class TmpfsMountOptions(Wire):
    """SizeBytes 0: unlimited; Mode is the octal mode as a number."""

    SizeBytes: int = 0
    Mode: int = 0
    Options: list[list[str]] = []


class ImageMountOptions(Wire):
    """Options of an image mount; Subpath is relative to the image's root."""

    Subpath: str = ""


class Mount(Wire):
    """Type: "bind", "volume", "tmpfs", "image", ..."""

    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindMountOptions | None = None
    VolumeOptions: VolumeMountOptions | None = None
    TmpfsOptions: TmpfsMountOptions | None = None
    ImageOptions: ImageMountOptions | None = None


class Resources(Wire):
    """Limits; 0 (None for the pointers) means none. Memory in bytes, NanoCpus in 1e-9 CPUs, periods in microseconds."""

    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[WeightDevice] = []
    BlkioDeviceReadBps: list[ThrottleDevice] = []
    BlkioDeviceWriteBps: list[ThrottleDevice] = []
    BlkioDeviceReadIOps: list[ThrottleDevice] = []
    BlkioDeviceWriteIOps: list[ThrottleDevice] = []
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] = []
    DeviceCgroupRules: list[str] = []
    DeviceRequests: list[dict[str, Any]] = []
    KernelMemory: int = 0
    KernelMemoryTCP: int = 0
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] = []


class HostConfig(Resources):
    """The part that depends on the host."""

    Binds: list[str] = []
    ContainerIDFile: str = ""
    LogConfig: LogChoice = LogChoice()
    NetworkMode: str = ""
    PortBindings: dict[str, list[PortBinding] | None] = {}
    RestartPolicy: RestartRule = RestartRule()
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] = []
    ConsoleSize: list[int] = [0, 0]
    Annotations: dict[str, str] = {}
    CapAdd: StrList = []
    CapDrop: StrList = []
    CgroupnsMode: str = ""
    Dns: list[str] = []
    DnsOptions: list[str] = []
    DnsSearch: list[str] = []
    ExtraHosts: list[str] = []
    GroupAdd: list[str] = []
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] = []
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] = []
    StorageOpt: dict[str, str] = {}
    Tmpfs: dict[str, str] = {}
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] = {}
    Runtime: str = ""
    Isolation: str = ""
    Mounts: list[Mount] = []
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | None = None
    IOMaximumBandwidth: int = 0
    IOMaximumIOps: int = 0


class EndpointIpam(Wire):
    """Addresses asked for."""

    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: list[str] = []


class EndpointConfig(Wire):
    """What a client asks of a container's place on one network (`EndpointSettings` of the API)."""

    IPAMConfig: EndpointIpam | None = None
    Links: list[str] = []
    Aliases: list[str] = []
    MacAddress: str = ""
    DriverOpts: dict[str, str] = {}
    GwPriority: int = 0
    NetworkID: str = ""


class NetworkingConfig(Wire):
    """Network name or ID to endpoint settings."""

    EndpointsConfig: dict[str, EndpointConfig] = {}
