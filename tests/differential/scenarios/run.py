"""`docker run`: exit codes, output, and what a process sees."""

from __future__ import annotations

from differential.scenario import Scenario, given, scenario

SCENARIOS: list[Scenario] = [
    scenario(
        "run exit codes",
        "docker run --rm dt-busybox true",
        "docker run --rm dt-busybox sh -c 'exit 3'",
        "docker run --rm dt-busybox sh -c 'kill -9 $$'",
        "docker run --rm dt-busybox sh -c 'kill -KILL $$; sleep 1'",
    ),
    scenario(
        "run output",
        "docker run --rm dt-busybox sh -c 'echo out; echo err >&2'",
        "docker run --rm -a stdout dt-busybox sh -c 'echo out; echo err >&2'",
        "docker run --rm -a stderr dt-busybox sh -c 'echo out; echo err >&2'",
        given("docker run --rm -i dt-busybox cat", "some\ninput\n"),
        "docker run --rm -t dt-busybox sh -c 'tty; stty size'",
    ),
    scenario(
        "run what is not there: 127",
        "docker run --name dt-a dt-busybox no-such-program",
        "inspect dt-a",
        "docker run --rm dt-busybox /no/such/path",
        "docker run --rm --entrypoint nothing dt-busybox",
    ),
    scenario(
        "run what may not be run: 126",
        "docker run --name dt-a dt-busybox /etc/passwd",
        "inspect dt-a",
        "docker run --rm dt-busybox /etc",
    ),
    scenario(
        "run with a bad user",
        "docker run --name dt-a -u nobody-here dt-busybox true",
        "inspect dt-a",
        "docker run --rm -u 0:no-such dt-busybox true",
        "docker run --rm -u 99999999999 dt-busybox true",
    ),
    scenario("run with a bad group", "docker run --rm --group-add no-such dt-busybox true"),
    scenario(
        "run in a bad working directory",
        "docker run --rm -w /etc/passwd dt-busybox true",
        "docker run --rm -w /new/deep dt-busybox pwd",
    ),
    scenario(
        "run users",
        "docker run --rm -u www dt-busybox id",
        "docker run --rm -u 1234 dt-busybox id",
        "docker run --rm -u www:staff dt-busybox id",
        "docker run --rm -u 0:50 --group-add 7 dt-busybox id",
        "docker run --rm -u :staff dt-busybox id",
    ),
    scenario(
        "run environment",
        "docker run --rm -h box dt-busybox env | sort",
        "docker run --rm -h box -u www -t -e A=b dt-busybox env | sort",
    ),
    scenario(
        "run with the image's own",
        "docker run --rm dt-rich",
        "docker run --rm dt-rich more",
        "docker run --rm --entrypoint pwd dt-rich",
        "docker run --rm --entrypoint id dt-rich",
    ),
    scenario(
        "run limits",
        "docker run --rm -m 64m --pids-limit 20 --cpus 0.5 dt-busybox echo limited",
        "docker run --rm --ulimit nofile=100:200 --ulimit core=0 dt-busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'",
    ),
    scenario(
        "run capabilities",
        "docker run --rm dt-busybox grep Cap /proc/self/status",
        "docker run --rm --cap-drop ALL dt-busybox grep Cap /proc/self/status",
        "docker run --rm --cap-add NET_ADMIN --cap-drop CHOWN dt-busybox grep Cap /proc/self/status",
        "docker run --rm -u www dt-busybox grep Cap /proc/self/status",
        "docker run --rm --security-opt no-new-privileges dt-busybox grep NoNewPrivs /proc/self/status",
    ),
    scenario(
        "run seccomp",
        "docker run --rm dt-busybox grep Seccomp: /proc/self/status",
        "docker run --rm --security-opt seccomp=unconfined dt-busybox grep Seccomp: /proc/self/status",
        "docker run --rm dt-busybox unshare -m true",
        "docker run --rm dt-busybox mount -t tmpfs none /tmp",
    ),
    scenario(
        "run device files",
        "docker run --rm dt-busybox sh -c 'ls /dev | grep -v core' | sort",
        "docker run --rm dt-busybox stat -c '%n %a %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
        "docker run --rm --device /dev/null:/dev/nil dt-busybox stat -c '%A %t:%T' /dev/nil",
    ),
    scenario(
        "run masked and read-only paths",
        "docker run --rm dt-busybox sh -c 'echo x > /proc/sys/kernel/hostname'",
        "docker run --rm dt-busybox sh -c 'ls /sys/firmware; wc -c < /proc/keys'",
        "docker run --rm --read-only dt-busybox touch /x",
        "docker run --rm --read-only --tmpfs /t dt-busybox touch /t/x",
    ),
    scenario(
        "run etc files",
        "docker run --rm -h web.example.org --add-host db:10.9.8.7 --network none dt-busybox cat /etc/hosts",
        "docker run --rm -h web --domainname example.org --network none dt-busybox sh -c 'hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname'",
        "docker run --rm --dns 10.1.2.3 --dns-search example.org --dns-option ndots:2 dt-busybox grep '^[a-z]' /etc/resolv.conf",
        "docker run --rm --network none --dns 10.1.2.3 dt-busybox grep '^[a-z]' /etc/resolv.conf",
    ),
    scenario(
        "run mounts seen inside",
        "docker run --rm --tmpfs /t:size=1m,mode=1770 dt-busybox sh -c \"grep ' /t ' /proc/mounts\"",
        "docker run --rm --shm-size 1m dt-busybox sh -c \"grep ' /dev/shm ' /proc/mounts\"",
        "docker run --rm -v dt-v:/v:ro dt-busybox touch /v/x",
        "docker run --rm -v /usr:/u:ro dt-busybox sh -c 'touch /u/dt-x'",
    ),
    scenario(
        "run volume takes the image's files",
        "docker run --rm -v dt-v:/etc dt-busybox sh -c 'ls /etc | grep passwd'",
        "docker run --rm -v dt-v:/mnt dt-busybox sh -c 'ls /mnt | sort | grep -v host | grep -v resolv'",
        "docker run --rm -v dt-w:/etc:nocopy dt-busybox ls /etc/passwd",
    ),
    scenario(
        "run process tree",
        "docker run --rm dt-busybox sh -c 'echo $$; ps -o pid,args | head -n 2'",
        "docker run --rm --init dt-busybox sh -c 'cat /proc/1/comm'",
        "docker run --rm --oom-score-adj 100 dt-busybox cat /proc/self/oom_score_adj",
    ),
    scenario(
        "run sysctl",
        "docker run --rm --sysctl net.ipv4.ip_forward=0 dt-busybox cat /proc/sys/net/ipv4/ip_forward",
        "docker run --rm --sysctl net.no.such=1 dt-busybox true",
        "docker run --rm --sysctl kernel.shmmax=12345 dt-busybox cat /proc/sys/kernel/shmmax",
    ),
    scenario(
        "run network none",
        "docker run --rm --network none dt-busybox grep -c eth /proc/net/dev",
        "docker run --rm --network none dt-busybox ping -c 1 -W 1 10.1.2.3",
    ),
    scenario(
        "run detached",
        "docker run -d --name dt-a dt-busybox sleep 100",
        "docker run -d --name dt-a dt-busybox sleep 100",
        "inspect dt-a",
    ),
    scenario(
        "run conflicting flags",
        "docker run -d --rm --restart always dt-busybox",
        "docker run -t -d -a stdout dt-busybox",
        "docker run --rm --network container:dt-no dt-busybox true",
        "docker run --no-such",
    ),
    scenario("run a missing bind source", "docker run --rm --mount type=bind,src=/dt-none,dst=/x dt-busybox true"),
    scenario(
        "run a bad mount over a file",
        "docker run --rm -v /usr:/etc/passwd dt-busybox true",
        "docker run --rm --tmpfs /t:size=odd dt-busybox true",
    ),
    scenario("run a missing device", "docker run --rm --device /dev/dt-none dt-busybox true"),
    scenario(
        "run without a network of that name",
        "docker run --rm --name dt-a --network dt-none dt-busybox true",
        "inspect dt-a",
    ),
    scenario(
        "run auto remove removes", "docker run --rm --name dt-a dt-busybox true", "wait dt-a removed", "inspect dt-a"
    ),
    scenario(
        "run health check",
        "docker run -d --name dt-a --health-cmd 'echo fine' --health-interval 100ms dt-busybox sleep 100",
        "wait dt-a healthy",
        "docker inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}} {{(index .State.Health.Log 0).Output}} {{(index .State.Health.Log 0).ExitCode}}' dt-a",
        "docker ps -f name=dt-a --format '{{.Status}}'",
    ),
    scenario(
        "run out of memory",
        "docker run --name dt-a -m 16m --memory-swap 16m --network none dt-busybox sh -c 'x=a; while true; do x=$x$x; done'",
        "docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' dt-a",
    ),
]
