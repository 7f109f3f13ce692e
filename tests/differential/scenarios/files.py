"""cp, export and commit."""

from __future__ import annotations

from differential.scenario import Scenario, given, scenario

_CREATE = "! docker create --name dt-a dt-busybox sleep 100"
_TREE = "! docker run --name dt-a dt-busybox sh -c 'mkdir -p /d/sub; echo 1 > /d/one; echo 2 > /d/sub/two; chmod 600 /d/one; ln -s one /d/l; ln -s /d /ld; ln -s /none /broken'"
_SHOW = "docker start -a dt-a"


def _into(name: str, *copies: str) -> Scenario:
    """Copies into a container, and what it then has."""
    return scenario(
        name,
        "! docker create --name dt-a dt-busybox sh -c 'cd /t && find . ! -name . -exec stat -c \"%n %a %u:%g %F\" {} + | sort'",
        "! docker cp dir/. dt-a:/t",
        *copies,
        _SHOW,
    )


SCENARIOS: list[Scenario] = [
    _into("cp into: file to a new name", "docker cp hello.txt dt-a:/t/new"),
    _into("cp into: file into a folder", "docker cp hello.txt dt-a:/t", "docker cp run.sh dt-a:/t/sub/"),
    _into("cp into: file over a file", "docker cp hello.txt dt-a:/t/one"),
    _into("cp into: folder to a new name", "docker cp dir dt-a:/t/new"),
    _into("cp into: folder into a folder", "docker cp dir dt-a:/t/sub"),
    _into("cp into: a folder's content", "docker cp dir/. dt-a:/t/sub"),
    _into("cp into: folder's content to a new name", "docker cp dir/. dt-a:/t/new"),
    _into(
        "cp into: links",
        "docker cp link dt-a:/t/as-link",
        "docker cp -L link dt-a:/t/as-file",
        "docker cp -a dir dt-a:/t/archived",
    ),
    _into(
        "cp into: what fails",
        "docker cp none dt-a:/t",
        "docker cp hello.txt dt-a:/t/none/",
        "docker cp hello.txt dt-a:/t/none/x",
        "docker cp dir dt-a:/t/one",
        "docker cp hello.txt dt-a:/t/one/",
        "docker cp hello.txt dt-no:/t",
        "docker cp hello.txt dir",
        "docker cp dt-a:/t dt-a:/u",
        "docker cp hello.txt",
    ),
    scenario(
        "cp out of: files",
        _TREE,
        "docker cp dt-a:/d/one a",
        "docker cp dt-a:/d/one dir",
        "docker cp dt-a:/d/one dir/",
        "docker cp dt-a:/d/one hello.txt",
        "docker cp dt-a:d/one rel",
        "tree a",
        "tree dir",
        "tree hello.txt",
        "tree rel",
    ),
    scenario(
        "cp out of: folders",
        _TREE,
        "docker cp dt-a:/d new",
        "docker cp dt-a:/d dir",
        "docker cp dt-a:/d/. dir/sub",
        "docker cp dt-a:/d/. fresh",
        "tree new",
        "tree dir",
        "tree fresh",
    ),
    scenario(
        "cp out of: links",
        _TREE,
        "docker cp dt-a:/d/l a",
        "docker cp -L dt-a:/d/l b",
        "docker cp dt-a:/ld c",
        "docker cp dt-a:/ld/ d",
        "docker cp dt-a:/ld/. e",
        "docker cp dt-a:/broken f",
        "docker cp -L dt-a:/broken g",
        "tree a",
        "tree b",
        "tree c",
        "tree d",
        "tree e",
        "tree f",
        "tree g",
    ),
    scenario(
        "cp out of: what fails",
        _TREE,
        "docker cp dt-a:/none x",
        "docker cp dt-a:/d/one/ x",
        "docker cp dt-a:/d/one/. x",
        "docker cp dt-a:/d/one none/x",
        "docker cp dt-a:/d hello.txt",
        "docker cp dt-no:/d x",
        "docker cp dt-a: x",
    ),
    scenario(
        "cp as tar", _TREE, given("docker cp - dt-a:/d", "not a tar"), "docker cp dt-a:/none -", "docker cp - dt-a:/d"
    ),
    scenario(
        "cp into read-only places",
        "! docker create --name dt-a --read-only -v dt-v:/v -v dt-w:/w:ro dt-busybox ls /v",
        "docker cp hello.txt dt-a:/x",
        "docker cp hello.txt dt-a:/v/x",
        "docker cp hello.txt dt-a:/w/x",
        "docker start -a dt-a",
    ),
    scenario(
        "cp with a running container",
        "! docker run -d --name dt-a --tmpfs /t dt-busybox sleep 100",
        "docker cp hello.txt dt-a:/tmp/x",
        "docker exec dt-a cat /tmp/x",
        "docker exec dt-a sh -c 'echo new > /tmp/y'",
        "docker cp dt-a:/tmp/y y",
        "tree y",
    ),
    scenario(
        "archive on the wire",
        _TREE,
        "HEAD /v1.45/containers/dt-a/archive?path=/d/one",
        "HEAD /v1.45/containers/dt-a/archive?path=/none",
        "GET /v1.45/containers/dt-a/archive?path=/none",
        "GET /v1.45/containers/dt-a/archive",
        "GET /v1.45/containers/dt-no/archive?path=/",
        "PUT /v1.45/containers/dt-a/archive?path=/none x",
        "PUT /v1.45/containers/dt-a/archive?path=/d/one x",
        "PUT /v1.45/containers/dt-a/archive x",
    ),
    scenario(
        "export",
        "! docker create --name dt-a dt-busybox",
        "docker export -o e.tar dt-a",
        "docker export dt-no",
        "docker export -o none/e.tar dt-a",
        "docker export",
    ),
    scenario(
        "commit",
        "! docker run --name dt-a -e A=1 -p 80 -v /anon -w /srv -u www --label x=y dt-busybox touch /tmp/x",
        "docker commit -a me -m why -c 'CMD [\"echo\", \"hi\"]' -c 'ENV B=2' -c 'LABEL z=w' -c 'EXPOSE 99' -c 'USER 5' -c 'WORKDIR /w' -c 'ENTRYPOINT [\"/bin/env\"]' -c 'VOLUME /vol' -c 'STOPSIGNAL INT' dt-a dt-img:v1",
        "inspect image dt-img:v1",
        "docker history --format '{{.CreatedBy}} {{.Comment}}' dt-img:v1",
    ),
    scenario(
        "commit plain",
        "! docker create --name dt-a dt-busybox echo hi",
        "docker commit dt-a dt-img",
        "inspect image dt-img",
        "docker run --rm dt-img",
    ),
    scenario(
        "commit: what fails",
        "docker commit dt-no x",
        "! docker create --name dt-a dt-busybox",
        "docker commit dt-a Bad",
        "docker commit -c odd dt-a dt-img",
        "docker commit -c 'RUN true' dt-a dt-img",
        "docker commit -c 'CMD' dt-a dt-img",
        "docker commit -c 'ENV' dt-a dt-img",
        "docker commit",
    ),
    scenario(
        "commit of a running one",
        "! docker run -d --name dt-a dt-busybox sh -c 'touch /x; sleep 100'",
        "docker commit -p=false dt-a dt-img",
        "docker inspect -f '{{.State.Status}}' dt-a",
        "docker commit dt-a dt-img2",
        "docker inspect -f '{{.State.Status}}' dt-a",
    ),
]
