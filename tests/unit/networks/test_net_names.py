"""Names and files: what a container is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from plugin_sdk.network import EndpointRecord, IpamConfig, IpamPool, NetworkRecord
from plugins.networks import hosts
from plugins.networks.dns import Resolver
from plugins.networks.hosts import DnsChoice, HostFiles, ResolvConf, parse_resolv
from plugins.networks.names import NameTable, View, dns_names

NET = NetworkRecord(
    Id="n1", Name="Front", Created="", Driver="bridge", IPAM=IpamConfig(Config=[IpamPool(Subnet="10.1.0.0/24")])
)


def endpoint(number: int, *names: str, v6: str = "") -> EndpointRecord:
    return EndpointRecord(
        Id=f"e{number}",
        NetworkID="n1",
        ContainerID=f"c{number}",
        IPv4Address=f"10.1.0.{number}/24",
        IPv6Address=v6,
        DNSNames=list(names),
    )


@pytest.fixture
def table() -> NameTable:
    names = NameTable()
    names.add(endpoint(2, "Web", "alias"))
    names.add(endpoint(3, "db", "alias", v6="fd00::3/64"))
    return names


def view(upstreams: Sequence[str] = (), **aliases: str) -> View:
    return View({"n1": NET}, aliases, upstreams)


def test_names_by_case_alias_and_network(table: NameTable) -> None:
    assert table.addresses(view(), "web", 4) == ["10.1.0.2"]
    assert table.addresses(view(), "web.front", 4) == ["10.1.0.2"]
    assert sorted(table.addresses(view(), "alias", 4) or []) == ["10.1.0.2", "10.1.0.3"]
    assert table.addresses(view(), "db", 6) == ["fd00::3"]
    assert table.addresses(view(), "web", 6) == []
    assert table.addresses(view(), "nobody", 4) is None
    assert table.addresses(view(store="db"), "store", 4) == ["10.1.0.3"]
    assert table.addresses(View({}), "web", 4) is None


def test_names_go_with_their_endpoints(table: NameTable) -> None:
    table.remove(endpoint(2, "Web", "alias"))
    table.remove(endpoint(2, "Web", "alias"))
    assert table.addresses(view(), "web", 4) is None
    assert table.addresses(view(), "alias", 4) == ["10.1.0.3"]
    assert table.name_of(view(), "10.1.0.2") is None
    assert table.name_of(view(), "10.1.0.3") == "db.Front"
    assert table.name_of(view(), "fd00::3") == "db.Front"


def test_names_of_an_endpoint_come_once() -> None:
    assert dns_names("web", "0123456789abcdef", "0123456789ab", ["www", "web"]) == ["web", "www", "0123456789ab"]


async def ask(resolver: Resolver, seen: View, name: str, kind: str, *, tcp: bool = False) -> dns.message.Message:
    reply = await resolver.answer(seen, dns.message.make_query(name, kind).to_wire(), tcp=tcp)
    assert reply is not None
    return dns.message.from_wire(reply)


async def nobody(seen: View, name: str) -> Sequence[str] | None:
    return None


async def test_answers(table: NameTable) -> None:
    resolver = Resolver(table, nobody)
    found = await ask(resolver, view(), "WEB.", "A")
    assert [str(record) for record in found.answer[0]] == ["10.1.0.2"]
    assert found.flags & dns.flags.RA
    empty = await ask(resolver, view(), "web.", "AAAA")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert (await ask(resolver, view(), "web.", "MX")).answer == []
    back = await ask(resolver, view(), dns.reversename.from_address("10.1.0.3").to_text(), "PTR")
    assert str(back.answer[0][0]) == "db.Front."
    unknown = await ask(resolver, view(), dns.reversename.from_address("10.1.0.77").to_text(), "PTR")
    assert unknown.rcode() == dns.rcode.NXDOMAIN


async def test_without_a_way_out_nothing_else_is_answered(table: NameTable) -> None:
    reply = await ask(Resolver(table, nobody), view(), "example.com.", "A")
    assert reply.rcode() == dns.rcode.SERVFAIL


async def test_other_plugins_are_asked(table: NameTable) -> None:
    async def service(seen: View, name: str) -> Sequence[str] | None:
        return {"vip": ["10.9.0.9", "fd00::9"], "gone": []}.get(name)

    resolver = Resolver(table, service)
    assert [str(r) for r in (await ask(resolver, view(), "vip.", "A")).answer[0]] == ["10.9.0.9"]
    assert [str(r) for r in (await ask(resolver, view(), "vip.", "AAAA")).answer[0]] == ["fd00::9"]
    assert (await ask(resolver, view(), "gone.", "A")).rcode() == dns.rcode.NXDOMAIN


async def test_long_answers_are_cut_over_udp_alone() -> None:
    table = NameTable()
    for number in range(2, 120):
        table.add(endpoint(number, "many"))
    resolver = Resolver(table, nobody)
    short = await ask(resolver, view(), "many.", "A")
    assert short.flags & dns.flags.TC
    assert short.answer == []
    assert len((await ask(resolver, view(), "many.", "A", tcp=True)).answer[0]) == 118


@pytest.mark.parametrize("junk", [b"", b"x", b"\x00" * 12, b"\xff" * 40, b"\x12\x34\x01\x00\x00\x01" + b"\xc0" * 60])
async def test_junk_is_survived(table: NameTable, junk: bytes) -> None:
    reply = await Resolver(table, nobody).answer(view(), junk, tcp=False)
    assert reply is None or (reply[:2] == junk[:2] and len(reply) >= 12)


def test_resolv_conf() -> None:
    conf = parse_resolv("# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1 # y\nsearch a b\noptions ndots:2 rotate\n")
    assert conf == ResolvConf(["127.0.0.53", "192.0.2.1"], ["a", "b"], ["ndots:2", "rotate"])
    assert hosts.plain_resolv(DnsChoice(), conf).nameservers == ["192.0.2.1"]
    assert hosts.plain_resolv(DnsChoice(), ResolvConf(["127.0.0.1"])).nameservers == ("8.8.8.8", "8.8.4.4")
    chosen = hosts.plain_resolv(DnsChoice(["9.9.9.9"], ["."]), conf)
    assert (chosen.nameservers, chosen.search) == (["9.9.9.9"], [])
    inside = hosts.embedded_resolv(DnsChoice(), conf)
    assert (inside.nameservers, inside.options) == (["127.0.0.11"], ["ndots:2", "rotate"])
    assert hosts.embedded_resolv(DnsChoice(), ResolvConf()).options == ["ndots:0"]
    assert hosts.upstreams(DnsChoice(), conf) == ["127.0.0.53", "192.0.2.1"]


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    files = HostFiles("box", "nameserver 192.0.2.1\n", names=[("10.1.0.2", "box")])
    mounts = hosts.write(folder, files)
    assert {mount.destination for mount in mounts} == {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert (folder / "hostname").read_text() == "box\n"
    before = (folder / "hosts").stat().st_ino
    hosts.change_names(folder, add=[("10.2.0.2", "box")], drop=["10.1.0.2"])
    text = (folder / "hosts").read_text()
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.2.0.2\tbox\n")
    assert "10.1.0.2" not in text
    assert (folder / "hosts").stat().st_ino == before
