"""Images as far as containers need them."""

from __future__ import annotations

from differential.scenario import Scenario, given, scenario

SCENARIOS: list[Scenario] = [
    scenario(
        "image inspect",
        "inspect image dt-busybox",
        "inspect image dt-rich",
        "docker image inspect dt-no",
        "inspect image dt-no",
    ),
    scenario(
        "images",
        "docker images dt-busybox",
        "docker images --format '{{.Repository}}:{{.Tag}} {{.Digest}}' dt-*  | sort",
        "docker images dt-no",
        "docker images --filter odd=1",
        "docker images --filter reference=dt-rich --format '{{.Repository}}'",
        "docker images --filter label=org.example.title=rich --format '{{.Repository}}'",
        "docker images --filter before=dt-no",
        "docker images -q dt-busybox",
        "docker images --no-trunc -q dt-busybox",
    ),
    scenario(
        "tag and rmi",
        "docker tag dt-busybox dt-x:v1",
        "docker tag dt-no dt-x:v2",
        "docker tag dt-busybox Bad",
        "docker images --format '{{.Repository}}:{{.Tag}}' dt-x",
        "docker rmi dt-x:v1",
        "docker rmi dt-x:v1",
        "docker rmi",
        "docker rmi Bad",
    ),
    scenario(
        "rmi in use",
        "! docker create --name dt-a dt-busybox",
        "! docker commit dt-a dt-img",
        "! docker create --name dt-b dt-img",
        "docker rmi dt-img",
        "docker rmi -f dt-img",
        "docker ps -a --filter name=dt-b --format '{{.Names}}'",
    ),
    scenario(
        "rmi in use by a running one",
        "! docker create --name dt-a dt-busybox",
        "! docker commit dt-a dt-img",
        "! docker run -d --name dt-b dt-img sleep 100",
        "docker rmi dt-img",
        "docker rmi -f dt-img",
    ),
    scenario(
        "history",
        "docker history --format '{{.CreatedBy}}|{{.Comment}}' dt-busybox",
        "docker history dt-no",
        "docker history -q dt-busybox",
    ),
    scenario(
        "save and load",
        "docker save -o s.tar dt-rich",
        "docker load -q -i s.tar",
        "docker save -o s.tar dt-no",
        "docker load -i none.tar",
        given("docker load", "not a tar"),
    ),
    scenario(
        "import",
        "! docker create --name dt-a dt-busybox",
        "! docker export -o e.tar dt-a",
        "docker import -m why -c 'CMD [\"echo\",\"hi\"]' -c 'ENV A=1' e.tar dt-imp:v1",
        "inspect image dt-imp:v1",
        "docker import none.tar dt-imp",
        "docker import e.tar Bad",
        "docker import -c odd e.tar dt-imp",
        "docker rmi dt-imp:v1",
    ),
    scenario(
        "image prune",
        "docker image prune -f --filter label=dt-none",
        "docker image prune -f --filter odd=1",
        "docker image prune -f --filter until=odd",
    ),
]
