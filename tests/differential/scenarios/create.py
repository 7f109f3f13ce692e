"""`docker create`: what each flag leaves in inspect, and what is refused."""

from __future__ import annotations

from differential.scenario import Scenario, scenario


def _flags(name: str, flags: str, image: str = "dt-busybox", command: str = "") -> Scenario:
    """A created container's whole JSON."""
    return scenario(name, f"docker create --name dt-a {flags} {image} {command}".strip(), "inspect dt-a")


def _refused(name: str, *commands: str) -> Scenario:
    """Command lines that fail."""
    return scenario(name, *commands)


SCENARIOS: list[Scenario] = [
    scenario("plain", "docker create --name dt-a dt-busybox", "inspect dt-a"),
    _flags("create with the image's rich config", "", "dt-rich"),
    _flags("create with a command over the image's", "", "dt-rich", "other words"),
    _flags("create with an entrypoint: the image's command goes", "--entrypoint /bin/ls", "dt-rich"),
    _flags("create with an entrypoint and a command", "--entrypoint /bin/ls", "dt-rich", "-l /"),
    _flags("create with an empty entrypoint", "--entrypoint ''", "dt-rich", "true"),
    _flags(
        "create env: merged, overridden, from a file, empty",
        "-e A=1 -e COLOUR=blue -e EMPTY= --env-file env.list",
        "dt-rich",
    ),
    _flags(
        "create labels: merged and from a file",
        "--label a=b --label c --label org.example.title=mine --label-file labels.list",
        "dt-rich",
    ),
    _flags(
        "create user, workdir, hostname, domain name",
        "-u 33:50 -w /tmp/new -h web.example.org --domainname example.net",
    ),
    _flags("create streams", "-i -t -a stdin -a stdout"),
    _flags("create interactive alone", "-i"),
    _flags("create stop signal and timeout", "--stop-signal SIGUSR1 --stop-timeout 3"),
    _flags("create memory", "-m 64m --memory-reservation 32m --memory-swap 128m"),
    _flags("create memory: swap doubles", "-m 64m"),
    _flags("create unlimited swap", "-m 64m --memory-swap -1"),
    _flags("create CPU", "--cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0"),
    _flags("create CPU period and quota", "--cpu-period 50000 --cpu-quota 25000"),
    _flags("create pids limit", "--pids-limit 50"),
    _flags("create ulimits", "--ulimit nofile=100:200 --ulimit core=0"),
    _flags("create capabilities", "--cap-add NET_ADMIN --cap-add cap_sys_time --cap-drop ALL"),
    _flags("create privileged", "--privileged"),
    _flags("create security options", "--security-opt no-new-privileges --security-opt seccomp=unconfined"),
    _flags("create device", "--device /dev/null:/dev/nil:r --device-cgroup-rule 'c 1:3 rwm'"),
    _flags("create namespaces of the host", "--pid host --ipc host --uts host --network host --cgroupns host"),
    _flags("create private namespaces", "--ipc private --cgroupns private"),
    _flags("create without an IPC", "--ipc none"),
    _flags("create network none", "--network none"),
    _flags(
        "create DNS and hosts",
        "--dns 10.1.2.3 --dns-search example.org --dns-option ndots:2 --add-host db:10.9.8.7 --add-host gw:host-gateway",
    ),
    _flags("create MAC address", "--mac-address 02:aa:bb:cc:dd:ee"),
    _flags("create ports", "-p 18080:80 -p 127.0.0.1:18053:53/udp -p 81 --expose 9000-9002"),
    _flags("create publish all", "-P", "dt-rich"),
    _flags("create shm, tmpfs, read-only", "--shm-size 32m --tmpfs /scratch:size=1m,mode=1770 --read-only"),
    _flags("create binds", "-v /usr:/host-usr:ro -v /tmp:/host-tmp:rslave"),
    _flags("create named volume", "-v dt-v:/data -v dt-w:/more:ro,nocopy"),
    _flags(
        "create mounts",
        "--mount type=bind,src=/usr,dst=/b,readonly --mount type=volume,src=dt-v,dst=/v --mount type=tmpfs,dst=/t,tmpfs-size=1048576,tmpfs-mode=1770",
    ),
    _flags(
        "create volume with labels and driver options",
        "--mount type=volume,src=dt-v,dst=/v,volume-label=x=y,volume-nocopy",
    ),
    _flags("create restart on failure", "--restart on-failure:3"),
    _flags("create restart always", "--restart always"),
    _flags("create auto remove", "--rm"),
    _flags("create logging", "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2"),
    _flags("create logging none", "--log-driver none"),
    _flags("create logging local", "--log-driver local"),
    _flags(
        "create health check",
        "--health-cmd 'test -e /x' --health-interval 2s --health-timeout 1s --health-retries 2 --health-start-period 3s",
    ),
    _flags("create without the image's health check", "--no-healthcheck", "dt-rich"),
    _flags(
        "create sysctl, init, OOM score, group",
        "--sysctl net.ipv4.ip_forward=1 --init --oom-score-adj 100 --group-add staff --group-add 7",
    ),
    _flags("create annotation", "--annotation a=b"),
    _flags("create runtime by name", "--runtime runc"),
    scenario(
        "create shares namespaces with a container",
        "! docker create --name dt-b --ipc shareable dt-busybox",
        "docker create --name dt-a --network container:dt-b --pid container:dt-b --ipc container:dt-b dt-busybox",
        "inspect dt-a",
    ),
    scenario(
        "create volumes from",
        "! docker create --name dt-b -v dt-v:/data -v /usr:/u:ro dt-busybox",
        "docker create --name dt-a --volumes-from dt-b:ro dt-busybox",
        "inspect dt-a",
    ),
    scenario(
        "create link",
        "! docker run -d --name dt-b dt-busybox sleep 100",
        "docker create --name dt-a --link dt-b:db dt-busybox",
        "inspect dt-a",
    ),
    scenario(
        "create cidfile",
        "docker create --name dt-a --cidfile cid dt-busybox",
        "docker create --cidfile cid dt-busybox",
        "tree cid",
    ),
    # What is refused.
    _refused("refused: no image", "docker create", "docker create dt-no-such --pull never"),
    _refused(
        "refused: unknown image", "docker create --pull never dt-no-such", "docker run --pull never dt-no-such:v1 true"
    ),
    _refused("refused: reference", "docker create Bad/Name", "docker create 'dt:a:b'"),
    _refused(
        "refused: name",
        "docker create --name -x dt-busybox",
        "docker create --name 'a b' dt-busybox",
        "docker create --name x dt-busybox",
    ),
    scenario("refused: name in use", "! docker create --name dt-a dt-busybox", "docker create --name dt-a dt-busybox"),
    _refused(
        "refused: memory",
        "docker create -m 1m dt-busybox",
        "docker create -m 64m --memory-swap 32m dt-busybox",
        "docker create --memory-swap 64m dt-busybox",
    ),
    _refused(
        "refused: memory reservation",
        "docker create -m 64m --memory-reservation 128m dt-busybox",
        "docker create --memory-reservation 1m dt-busybox",
    ),
    _refused(
        "refused: CPU",
        "docker create --cpus 1000 dt-busybox",
        "docker create --cpus -1 dt-busybox",
        "docker create --cpus 1 --cpu-quota 5000 dt-busybox",
        "docker create --cpu-period 10 dt-busybox",
        "docker create --cpu-quota 10 dt-busybox",
    ),
    _refused(
        "refused: cpuset",
        "docker create --cpuset-cpus 99 dt-busybox",
        "docker create --cpuset-cpus x dt-busybox",
        "docker create --cpuset-mems 99 dt-busybox",
    ),
    _refused(
        "refused: block I/O weight of a device",
        "docker create --blkio-weight-device /dev/null:5 dt-busybox",
    ),
    _refused(
        "refused: shm and OOM", "docker create --shm-size 0 dt-busybox", "docker create --oom-score-adj 2000 dt-busybox"
    ),
    _refused(
        "refused: restart policy",
        "docker create --restart sometimes dt-busybox",
        "docker create --restart always:3 dt-busybox",
        "docker create --restart on-failure:-1 dt-busybox",
        "docker create --restart always --rm dt-busybox",
    ),
    _refused(
        "refused: namespaces",
        "docker create --pid container:dt-no dt-busybox",
        "docker create --ipc container:dt-no dt-busybox",
        "docker create --ipc odd dt-busybox",
        "docker create --pid odd dt-busybox",
        "docker create --uts odd dt-busybox",
        "docker create --cgroupns odd dt-busybox",
    ),
    _refused(
        "refused: network",
        "docker create --network container:dt-no dt-busybox",
        "docker create --network none --network bridge dt-busybox",
        "docker create --network host -p 1:1 dt-busybox",
        "docker create --network host --link dt-x dt-busybox",
        "docker create --network container:x -h y dt-busybox",
    ),
    _refused(
        "refused: volumes",
        "docker create -v /a:/b:/c:/d dt-busybox",
        "docker create -v rel/ative:/b dt-busybox",
        "docker create -v /usr:relative dt-busybox",
        "docker create -v /usr:/ dt-busybox",
        "docker create -v /usr:/b:odd dt-busybox",
        "docker create -v /usr:/a -v /tmp:/a dt-busybox",
    ),
    _refused(
        "refused: mounts",
        "docker create --mount type=bind,src=/dt-none,dst=/b dt-busybox",
        "docker create --mount type=odd,dst=/b dt-busybox",
        "docker create --mount type=volume,src=dt-v dt-busybox",
        "docker create --mount type=bind,dst=/b dt-busybox",
        "docker create --mount type=tmpfs,src=x,dst=/b dt-busybox",
    ),
    _refused(
        "refused: volumes from",
        "docker create --volumes-from dt-no dt-busybox",
        "docker create --volumes-from dt-no:odd dt-busybox",
    ),
    _refused(
        "refused: volume driver", "docker create --mount type=volume,src=dt-v,dst=/v,volume-driver=dt-odd dt-busybox"
    ),
    _refused(
        "refused: capabilities and security options",
        "docker create --cap-add ODD dt-busybox",
        "docker create --security-opt odd dt-busybox",
        "docker create --security-opt odd=1 dt-busybox",
        "docker create --security-opt seccomp=none.json dt-busybox",
    ),
    _refused(
        "refused: devices",
        "docker create --device-cgroup-rule odd dt-busybox",
        "docker create --device /dev/null:/dev/x:odd dt-busybox",
    ),
    _refused(
        "refused: ports",
        "docker create -p odd dt-busybox",
        "docker create -p 80:99999 dt-busybox",
        "docker create -p 1-3:1-2 dt-busybox",
        "docker create --expose odd dt-busybox",
    ),
    _refused(
        "refused: sysctl",
        "docker create --sysctl kernel.hostname=x --network host --uts host dt-busybox",
        "docker create --sysctl odd dt-busybox",
        "docker create --sysctl net.ipv4.ip_forward=1 --network host dt-busybox",
    ),
    _refused(
        "refused: ulimits", "docker create --ulimit odd=1 dt-busybox", "docker create --ulimit nofile=5:1 dt-busybox"
    ),
    _refused(
        "refused: logging",
        "docker create --log-driver odd dt-busybox",
        "docker create --log-opt odd=1 dt-busybox",
        "docker create --log-opt max-size=x dt-busybox",
        "docker create --log-driver none --log-opt max-size=1m dt-busybox",
    ),
    _refused(
        "refused: stop signal and stop timeout",
        "docker create --stop-signal ODD dt-busybox",
        "docker create --stop-timeout x dt-busybox",
    ),
    _refused(
        "refused: health check",
        "docker create --no-healthcheck --health-cmd x dt-busybox",
        "docker create --health-interval 1us dt-busybox",
        "docker create --health-interval -1s dt-busybox",
        "docker create --health-retries -1 dt-busybox",
    ),
    _refused(
        "refused: env and label",
        "docker create -e =x dt-busybox",
        "docker create --env-file none dt-busybox",
        "docker create -w relative dt-busybox",
    ),
    _refused("refused: runtime", "docker create --runtime dt-odd dt-busybox"),
    _refused(
        "refused: hosts and DNS",
        "docker create --add-host odd dt-busybox",
        "docker create --add-host a:odd dt-busybox",
        "docker create --dns odd dt-busybox",
        "docker create --mac-address odd dt-busybox",
    ),
    _refused(
        "refused: storage options",
        "docker create --storage-opt odd=1 dt-busybox",
        "docker create --storage-opt size=x dt-busybox",
    ),
    _refused("refused: tmpfs", "docker create --tmpfs relative dt-busybox", "docker create --tmpfs /x:odd dt-busybox"),
    _refused("refused: unknown flag", "docker create --no-such-flag dt-busybox"),
]
