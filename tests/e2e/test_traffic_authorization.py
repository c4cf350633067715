"""Who is let in: callers, rules, audit and modes of mTLS, on real sidecars and while requests are on their way."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import LAB, PATIENT, TCP, Answer, Load, Map, ask, read_map, running

from meshctl.adapters.cert_files import FileAuthority

pytestmark = pytest.mark.e2e

RULES = [
    {"name": "no-admin", "action": "deny", "paths": ["/admin/*", "/user@home"]},
    {"name": "no-interns", "action": "deny", "headers": {"x-role": "intern"}},
    {"name": "charges", "action": "allow", "from": ["web"], "methods": ["POST"], "paths": ["/charge", "/tries/*"]},
    {"name": "looking", "action": "allow", "methods": ["GET"], "headers": {"x-role": {"regex": "(?i)admin|root"}}},
]
AUDITED = {"audit": True, "rules": [{"name": "no-refunds", "action": "deny", "paths": ["/refund"]}]}


def make_topology(**changes: dict[str, Any]) -> dict[str, Any]:
    called: dict[str, dict[str, Any]] = {
        "payment": {"command": LAB, "security": {"rules": RULES}},
        "stats": {"command": LAB},
        "trial": {"command": LAB, "security": AUDITED},
        "moving": {"command": LAB},
        "cache": {"command": TCP, "protocol": "tcp"},
    }
    for name, security in changes.items():
        called[name] = called[name] | {"security": security}
    web = {"command": LAB, "upstreams": [*called]}
    return {
        "name": "authz",
        "telemetry": {"access_log": "off"},
        "defaults": PATIENT,
        "services": {"web": web, "other": {"command": LAB}, **called},
    }


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    with running(make_topology()) as mesh:
        yield read_map(mesh)


@pytest.fixture(autouse=True)
def restored(world: Map) -> Iterator[None]:
    yield
    if (world.mesh.folder / "changed").exists():
        (world.mesh.folder / "changed").unlink()
        change(world)
        (world.mesh.folder / "changed").unlink()


def change(world: Map, **changes: dict[str, Any]) -> None:
    world.mesh.write(make_topology(**changes))
    (world.mesh.folder / "changed").touch()
    world.mesh.up()


def connect(world: Map, source: str, instance: str) -> ssl.SSLSocket:
    """A connection to an inbound listener with the certificate of a service: as code beside its sidecar could make."""
    authority = FileAuthority(f"{world.mesh.paths.ca}/authz.mesh", mesh="authz", trust_domain="authz.mesh")
    leaf = authority.leaf(source)
    assert leaf is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # identities are URIs, which Python does not match
    context.load_verify_locations(cadata="".join(root.certificate_pem.decode() for root in authority.roots()))
    pair = Path(world.mesh.folder) / f"{source}.pem"
    pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
    context.load_cert_chain(pair)
    port: int = world.instance(instance)["inbound_port"]
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 60))


def send(world: Map, source: str, service: str, line: str, *headers: str) -> Answer:
    """One request as a service, past its sidecar, its first line as given."""
    with connect(world, source, f"{service}-v1-1") as secure:
        words = "".join(f"{text}\r\n" for text in (f"{line} HTTP/1.1", "host: x", "connection: close", *headers, ""))
        secure.sendall(words.encode())
        response = http.client.HTTPResponse(secure)
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())


def refusals(world: Map, service: str) -> list[dict[str, Any]]:
    lines = world.mesh.must("logs", "--access", "-o", "json", f"sidecar.{service}").splitlines()
    return [line for line in map(json.loads, lines) if {"denied", "would be denied"} & set(line["reasons"])]


def refused_connections(world: Map, service: str) -> list[dict[str, Any]]:
    lines = world.mesh.must("logs", "--no-prefix", f"sidecar.{service}").splitlines()
    return [json.loads(line) for line in lines if '"meshctl":"authorization"' in line]


def check(world: Map, *words: str) -> tuple[int, dict[str, Any]]:
    done = world.mesh.run("authz", "check", "-o", "json", *words)
    return done.code, json.loads(done.out)


# ------------------------------------------------------------------------------------------------ who


def test_declared_callers_are_let_in_and_others_are_not(world: Map) -> None:
    assert ask(world.upstream("web", "stats")).status == 200
    assert world.mesh.call("stats/")["status"] == 200
    refused = send(world, "other", "stats", "GET /")
    assert refused.status == 403
    assert refused.headers["x-meshctl-denied"] == "rbac_access_denied_matched_policy[undeclared-caller]"
    assert "stats-v1-1 refused GET / of spiffe://authz.mesh/other" in refused.text
    code, answer = check(world, "--from", "other", "--to", "stats")
    assert (code, answer["policy"], answer["where"]["file"]) == (1, "undeclared-caller", "mesh.yaml")


def test_a_refusal_is_a_line_in_the_log_of_the_sidecar(world: Map) -> None:
    assert send(world, "other", "stats", "POST /written/down?now").status == 403
    wanted = {
        "side": "callee",
        "source": "other",
        "instance": "stats-v1-1",
        "method": "POST",
        "path": "/written/down?now",
        "status": 403,
        "reasons": ["denied"],
        "rule": "undeclared-caller",
    }

    def written_down() -> list[dict[str, Any]]:
        found = [line for line in refusals(world, "stats") if line["path"] == wanted["path"]]
        return [{key: line[key] for key in wanted} for line in found]

    # One request, one line, though the access log is off.
    assert wait_until(written_down, "the refusal is written down") == [wanted]


# ------------------------------------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("method", "path", "headers", "policy"),
    [
        ("POST", "/charge", {}, ""),
        ("POST", "/charge/?fast=1", {}, ""),
        ("GET", "/charge", {}, "no-allow-rule"),
        ("POST", "/charges", {}, "no-allow-rule"),
        ("GET", "/anything", {"x-role": "Admin"}, ""),
        ("GET", "/anything", {"x-role": "administrator"}, "no-allow-rule"),
        ("GET", "/admin/keys", {"x-role": "root"}, "rule:no-admin"),
        ("POST", "/charge", {"x-role": "intern"}, "rule:no-interns"),
        ("POST", "/charge", {"x-role": "root, intern"}, "rule:no-interns"),
    ],
)
def test_rules_decide_by_method_path_and_header(
    world: Map, method: str, path: str, headers: dict[str, str], policy: str
) -> None:
    answer = ask(world.upstream("web", "payment"), path, method=method, headers=headers)
    assert answer.status == (403 if policy else 200)
    assert answer.headers.get("x-meshctl-denied", "") == (
        f"rbac_access_denied_matched_policy[{policy}]" if policy else ""
    )
    words = [word for name, value in headers.items() for word in ("--header", f"{name}={value}")]
    code, said = check(world, "--from", "web", "--to", "payment", "--method", method, "--path", path, *words)
    assert (code == 0, said["policy"]) == (not policy, policy or said["policy"])


@pytest.mark.parametrize(
    "path",
    ["/admin", "/admin/", "//admin/x", "/./admin", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin", "/x\\..\\admin",
     "/admin?x=/charge", "/x%2f..%2fadmin", "/admin;x/y", "/x/..;/admin", "/admin%2fx", "/x%5c..%5cadmin",
     "/%%32e%%32e/admin", "/x/%252e%252e/admin", "/%2561dmin", "/user%40home", "/charge/../admin#/charge"],
)  # fmt: skip
def test_no_way_of_writing_a_path_gets_around_a_rule(world: Map, path: str) -> None:
    assert send(world, "gateway", "payment", "GET /").status == 200
    assert send(world, "gateway", "payment", f"GET {path}").status in (400, 403)


def test_a_second_value_beside_a_refused_one_is_no_way_around_it(world: Map) -> None:
    for values in (("intern", "root"), ("root", "intern"), ("a,intern,b",), (" intern ",)):
        headers = [f"x-role: {value}" for value in values]
        assert send(world, "web", "payment", "POST /charge", *headers, "content-length: 0").status == 403


def test_a_refusal_is_not_retried_and_opens_no_circuit(world: Map) -> None:
    port, name = world.upstream("web", "payment"), "cluster.payment/v1"
    before = world.stats("web", name)
    for _ in range(12):
        assert ask(port, "/nothing").status == 403
    after = world.stats("web", name)
    sent = f"{name}.upstream_rq_total"
    assert after[sent] - before.get(sent, 0) == 12
    assert after.get(f"{name}.upstream_rq_retry", 0) == before.get(f"{name}.upstream_rq_retry", 0)
    assert ask(port, "/charge", method="POST").status == 200


def test_a_grpc_client_is_told_permission_denied(world: Map) -> None:
    headers = {"content-type": "application/grpc"}
    answer = ask(world.upstream("web", "payment"), "/bank.Bank/Close", method="POST", headers=headers, body=b"")
    assert (answer.status, answer.headers["grpc-status"]) == (200, "7")


def test_rules_change_on_connections_that_are_open(world: Map) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", world.upstream("web", "stats"), timeout=60)

    def get() -> int:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response.status

    with connect(world, "web", "stats-v1-1") as secure:

        def status_of_open_connection() -> int:
            secure.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            response = http.client.HTTPResponse(secure)
            response.begin()
            response.read()
            return response.status

        assert (get(), status_of_open_connection()) == (200, 200)
        change(world, stats={"rules": [{"name": "not-web", "action": "deny", "from": ["web"]}]})
        assert (get(), status_of_open_connection()) == (403, 403)
        change(world, stats={"default": "deny"})
        assert (get(), status_of_open_connection()) == (403, 403)
        assert world.mesh.call("stats/")["status"] == 200  # the developer's door
        change(world, stats={"authz_policy": "none"})
        assert (get(), status_of_open_connection()) == (200, 200)
        assert send(world, "other", "stats", "GET /").status == 200
    connection.close()


# ------------------------------------------------------------------------------------------------ audit


def test_an_audit_refuses_nobody_and_writes_down_who_would_be(world: Map) -> None:
    assert ask(world.upstream("web", "trial"), "/refund").status == 200
    assert ask(world.upstream("web", "trial"), "/order").status == 200
    wait_until(lambda: refusals(world, "trial"), "the line is there")
    (line,) = refusals(world, "trial")
    assert (line["rule"], line["status"], line["path"]) == ("rule:no-refunds", 200, "/refund")
    assert line["reasons"] == ["would be denied"]
    code, answer = check(world, "--from", "web", "--to", "trial", "--path", "/refund")
    assert (code, answer["decision"], answer["audit"], answer["rule"]) == (0, "deny", True, "no-refunds")


# ------------------------------------------------------------------------------------------------ plain TCP


def test_plain_tcp_is_refused_before_a_byte_crosses(world: Map) -> None:
    # The service speaks first, so that a check of what clients send would come too late.
    with socket.create_connection(("127.0.0.1", world.upstream("web", "cache")), 60) as through:
        assert through.recv(100) == b"cache-v1-1\n"
        assert greeting(world, "web") == b"cache-v1-1\n"
        assert greeting(world, "other") == b""
        change(world, cache={"rules": [{"name": "not-web", "action": "deny", "from": ["web"]}]})
        assert greeting(world, "web") == b""
        through.sendall(b"decided when it was made")
        assert through.recv(100) == b"decided when it was made"
    wait_until(
        lambda: (
            {"spiffe://authz.mesh/web", "spiffe://authz.mesh/other"}
            == {i["from"] for i in refused_connections(world, "cache")}
        ),
        "both refusals are written down",
    )


def greeting(world: Map, source: str) -> bytes:
    try:
        with connect(world, source, "cache-v1-1") as secure:
            return secure.recv(100)
    except (ssl.SSLError, ConnectionError):
        return b""


# ------------------------------------------------------------------------------------------------ modes of mTLS


def test_modes_of_mtls_change_without_a_lost_request(world: Map) -> None:
    port, inbound = world.upstream("web", "moving"), world.instance("moving-v1-1")["inbound_port"]
    anonymous = {"rules": [{"name": "look-only", "action": "deny", "from": ["anonymous"], "methods": ["POST"]}]}
    with Load(port) as load:
        load.wait_for_more(20)
        change(world, moving={"mtls": "permissive"} | anonymous)
        assert (ask(inbound).status, ask(inbound, method="POST").status) == (200, 403)
        assert "x-forwarded-client-cert" not in ask(inbound).json["headers"]
        assert "URI=spiffe://authz.mesh/web" in ask(port).json["headers"]["x-forwarded-client-cert"]
        assert ask(port, method="POST").status == 200
        load.wait_for_more(50)
        change(world, moving={"mtls": False})
        assert "x-forwarded-client-cert" not in ask(port).json["headers"]
        load.wait_for_more(50)
        change(world, moving={"mtls": "strict"})
        assert "URI=spiffe://authz.mesh/web" in ask(port).json["headers"]["x-forwarded-client-cert"]
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(inbound)
        load.wait_for_more(50)
    assert load.failures == []
