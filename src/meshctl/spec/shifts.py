"""Shifting traffic between the versions of a service, as changes of its policies.  Pure.

Enters: a service, the weights that are asked for, who is meant.  Leaves: the whole split, and policy documents that
say so.  What a shift adds beside the split (a route for a header, stickiness) it takes away again once one version has
all the traffic, so that nothing is left that differs from the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshctl.errors import ConflictError, NotFoundError, UsageError, Where
from meshctl.spec.policies import FILES, Document, Documents, Origin, PolicyKey
from meshctl.spec.policy_changes import same_node
from meshctl.spec.render import Value, to_node
from meshctl.spec.routing_keys import COOKIE_NAME, HEADER_NAME, HEADER_VALUE
from meshctl.spec.routing_schema import RouteMatch, RouteRule, ValueKind, ValueMatch
from meshctl.spec.schema import Service
from meshctl.spec.shapes import Text
from meshctl.spec.source import ListNode, MapNode, Node, ScalarNode, make_list
from meshctl.spec.validate_routes import covers

FULL = 100

ROUTE = "canary"
"""The name of the route that sends requests with a header to the versions of a shift."""

COOKIE = "meshctl-canary"
"""The cookie that keeps a user on one version where no other is named."""

AUTHOR = "canary"
"""What the command begins with in the author of what is taken away by itself: ``ann@canary shift``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticking:
    """What keeps a user on one version: a cookie or a header, or with neither that nothing does."""

    cookie: str = ""
    header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What is asked for: weights in percent by version; what is not named goes to the stable version.

    With ``header`` they are the weights of the requests that carry it, with ``value`` if that is not None; all others
    no longer reach the versions named. ``sticking`` of None leaves things as they are.
    """

    weights: Mapping[str, int]
    header: str = ""
    value: str | None = None
    sticking: Sticking | None = None


def read_sticking(text: str) -> Sticking | None:
    """``cookie``, ``cookie:NAME``, ``header:NAME`` or ``off``; None of an empty text. Raises UsageError."""
    kind, colon, name = text.partition(":")
    if not text:
        return None
    if kind == "cookie" and (name or not colon):
        return Sticking(cookie=_check(COOKIE_NAME, name or COOKIE))
    if kind == "header" and name:
        return Sticking(header=_check(HEADER_NAME, name).lower())
    if text == "off":
        return Sticking()
    raise UsageError(
        f"{text!r} keeps nobody on one version", hint="write cookie, cookie:NAME, header:NAME (such as x-user) or off"
    )


def read_header(name: str, value: str | None) -> tuple[str, str | None]:
    """The header of a request as it is compared: its name in lower case. Raises UsageError."""
    if not name:
        return "", None
    return _check(HEADER_NAME, name).lower(), None if value is None else _check(HEADER_VALUE, value)


def _check(shape: Text, text: str) -> str:
    if not re.fullmatch(shape.pattern, text):
        raise UsageError(f"{text!r} is not {shape.what}", hint=shape.hint)
    return text


def check_versions(service: Service, names: Mapping[str, object]) -> None:
    """Refuse a service that has no versions to choose from, and versions that it does not have.

    Raises:
        ConflictError: the service is outside the mesh, a job, or has fewer than two versions.
        NotFoundError: it has no such version; says which it has.
    """
    name = service.name
    if service.address is not None:
        raise ConflictError(f"{name} lies outside the mesh: it has no versions")
    if service.is_job:
        raise ConflictError(f"{name} is a job: it takes no calls")
    if not service.versions:
        raise ConflictError(
            f"the topology knows no versions of {name}: its traffic is shared evenly among those that register",
            hint=f"declare them under services.{name}.versions, then run: meshctl up",
        )
    for version in names:
        if version not in service.versions:
            raise NotFoundError(f"{name} has no version {version}", hint=f"its versions: {list_versions(service)}")
    if len(service.versions) == 1:
        raise ConflictError(
            f"{name} has one version only, {service.stable}: there is nothing to choose from",
            hint=f"declare another one under services.{name}.versions, then run: meshctl up",
        )


def list_versions(service: Service) -> str:
    """``v1 (stable), v2``."""
    return ", ".join(f"{name} (stable)" if name == service.stable else name for name in service.versions)


def complete_weights(service: Service, asked: Mapping[str, int]) -> dict[str, int]:
    """The whole split: what is not named goes to the stable version; in the order of the versions, without zeros.

    Raises what ``check_versions`` raises, and UsageError for weights that are no split.
    """
    check_versions(service, asked)
    for version, weight in asked.items():
        if not 0 <= weight <= FULL:
            raise UsageError(
                f"the weight of {version} cannot be {weight}", hint="a weight is a whole percentage from 0 to 100"
            )
    stable = service.stable
    others = [name for name in service.versions if name != stable]
    if not set(asked) - {stable}:
        raise UsageError(
            f"{stable} is the stable version of {service.name}: it gets what no other version is given",
            hint=f"name the version to shift to or from, such as {others[0]}=10, or {others[0]}=0 to take all back",
        )
    total = sum(asked.values())
    if total > FULL or (stable in asked and total != FULL):
        hint = f"leave {stable} out: as the stable version it gets the rest" if stable in asked else ""
        raise UsageError(f"weights must sum to 100, these sum to {total}", hint=hint)
    weights = {**dict.fromkeys(service.versions, 0), **asked, stable: asked.get(stable, FULL - total)}
    return {version: weight for version, weight in weights.items() if weight}


def withdraw(service: Service, versions: Mapping[str, object]) -> dict[str, int]:
    """The split in force without some versions, whose share goes to the stable one."""
    kept = {name: weight for name, weight in service.split.items() if name not in versions}
    kept[service.stable] = kept.get(service.stable, 0) + FULL - sum(kept.values())
    return {name: kept[name] for name in service.versions if kept.get(name)}


def shift_traffic(
    service: Service, shift: Shift, *, current: Documents, files: Documents, origin: Origin
) -> dict[PolicyKey, Document]:
    """The policies once traffic is shifted.

    Raises:
        UsageError, NotFoundError, ConflictError: as ``complete_weights``.
        ConflictError: a route of the files has the name of the one that a header needs.
    """
    wanted = complete_weights(service, shift.weights)
    editor = _Editor(service.name, files, origin, {**current})
    split, sticking = wanted, shift.sticking
    own = ROUTE in set(_names(files.get((service.name, "routes"))))
    if shift.header:
        named = {name: weight for name, weight in shift.weights.items() if name != service.stable}
        split = withdraw(service, named)
        if own:
            raise ConflictError(
                f"{service.name} has a route called {ROUTE} in the topology, which is what --header would make",
                hint="give that route another name",
            )
        _check_rivals(service, shift)
    ends = wanted == {service.stable: FULL} if shift.header else len(split) == 1
    made = None if own else find_route(service)
    if shift.header and not ends:
        editor.set_route(_route(shift, wanted))
    elif made is not None and (ends or not any(shift.weights.get(name, 1) for name in _others(service, made))):
        editor.set_route(None)
    editor.set("split", None if split == {service.stable: FULL} else dict(split), otherwise=dict(split))
    if sticking is not None:
        editor.set("sticky", _sticky(sticking))
    elif ends and len(split) == 1:
        editor.release("sticky")
    return editor.documents


def find_route(service: Service) -> RouteRule | None:
    """The route that a shift made for a header; None when there is none."""
    rule = service.routes[0] if service.routes else None
    return rule if rule is not None and rule.name == ROUTE and rule.split and rule.match.headers else None


def find_own_routes(service: Service) -> tuple[str, ...]:
    """The names of the routes that do not go by the service's split, but for the one that a shift made."""
    made = find_route(service)
    return tuple(rule.name for rule in service.routes if rule is not made and (rule.split or rule.redirect is not None))


def targets_of(service: Service) -> dict[str, int]:
    """The versions that get requests or copies: the largest share that one way of them gives, in percent."""
    made = find_route(service)
    ways: list[Mapping[str, int]] = [service.split, *([made.split] if made is not None else [])]
    if service.mirror is not None and service.mirror.percent:
        ways.append({service.mirror.version: 1})
    found: dict[str, int] = {}
    for way in ways:
        for version, weight in way.items():
            found[version] = max(weight, found.get(version, 0))
    return found


def count_started(services: Mapping[str, Service], documents: Documents) -> dict[str, int]:
    """Instances, by ``service/version``, of versions that the files do not run and commands have given traffic.

    What a shift started is started again when the mesh comes up the next time, for the shift holds on.
    """
    counts: dict[str, int] = {}
    for service in services.values():
        found = [documents.get((service.name, kind)) for kind in ("split", "routes", "mirror")]
        if not any(item is not None and item.node is not None and item.origin != FILES for item in found):
            continue
        for name in targets_of(service):
            version = service.versions.get(name)
            if version is not None and version.command and not version.replicas:
                counts[f"{service.name}/{name}"] = 1
    return counts


def _check_rivals(service: Service, shift: Shift) -> None:
    """Refuse a header by which requests are routed already: that route would never be reached again."""
    kind: ValueKind = "present" if shift.value is None else "exact"
    match = RouteMatch(headers=(ValueMatch(name=shift.header, kind=kind, value=shift.value or ""),))
    made = find_route(service)
    for rule in service.routes:
        if rule is not made and covers(match, rule.match):
            raise ConflictError(
                f"the route {rule.name} of {service.name} is for requests with {shift.header} already",
                hint="take another header, or change that route",
            )


def _others(service: Service, route: RouteRule) -> tuple[str, ...]:
    return tuple(name for name in route.split if name != service.stable)


def _route(shift: Shift, weights: Mapping[str, int]) -> Mapping[str, Value]:
    condition: Value = {"present": True} if shift.value is None else shift.value
    target: Mapping[str, Value] = {"split": dict(weights)}
    if len(weights) == 1:
        target = {"version": next(iter(weights))}
    return {"name": ROUTE, "match": {"headers": {shift.header: condition}}, **target}


def _sticky(sticking: Sticking) -> Value:
    if sticking.cookie:
        return {"cookie": {"name": sticking.cookie}}
    return {"header": sticking.header} if sticking.header else None


def _names(document: Document | None) -> Iterator[str]:
    node = document.node if document is not None else None
    for item in node.items if isinstance(node, ListNode) else ():
        name = item.get("name") if isinstance(item, MapNode) else None
        if isinstance(name, ScalarNode):
            yield name.text


@dataclass(slots=True)
class _Editor:
    """Sets policies of one service; what the files say anyway is left to them."""

    owner: str
    files: Documents
    origin: Origin
    documents: dict[PolicyKey, Document]

    def set(self, kind: str, value: Value, *, otherwise: Value = None) -> None:
        """Set a policy, or take it away with a value of None; where the files have it, it is set to ``otherwise``."""
        file = self.files.get((self.owner, kind))
        if value is None and file is not None and file.node is not None:
            value = otherwise
        before = self.documents.get((self.owner, kind))
        if value is not None:
            self._put(kind, to_node(value, self._where))
        elif file is not None and file.node is not None:
            self._put(kind, None)
        elif before is not None:
            del self.documents[self.owner, kind]

    def release(self, kind: str) -> None:
        """Return to what the files say, if it was a command of this kind that set the policy otherwise."""
        before = self.documents.get((self.owner, kind))
        if before is None or before.origin.author.partition("@")[2].partition(" ")[0] != AUTHOR:
            return
        file = self.files.get((self.owner, kind))
        if file is None:
            del self.documents[self.owner, kind]
        else:
            self.documents[self.owner, kind] = file

    def set_route(self, route: Mapping[str, Value] | None) -> None:
        """Have this route above all others, in place of one that was made before; None for none."""
        before, file = self.documents.get((self.owner, "routes")), self.files.get((self.owner, "routes"))
        node = before.node if before is not None else None
        items = list(node.items) if isinstance(node, ListNode) else []
        kept = [item for item in items if not _is_made(item)]
        if route is not None:
            kept.insert(0, to_node(route, self._where))
        if not kept and file is None:
            self.documents.pop((self.owner, "routes"), None)
        else:
            self._put("routes", make_list(kept, node.where if node is not None and route is None else self._where))

    def _put(self, kind: str, node: Node | None) -> None:
        before, file = self.documents.get((self.owner, kind)), self.files.get((self.owner, kind))
        if before is not None and same_node(before.node, node):
            return
        if file is not None and same_node(file.node, node):
            self.documents[file.key] = file
            return
        document = Document(owner=self.owner, kind=kind, where=self._where, node=node, origin=self.origin)
        self.documents[document.key] = document

    @property
    def _where(self) -> Where:
        return Where(f"({self.origin.author})", 0, 0)


def _is_made(item: Node) -> bool:
    name = item.get("name") if isinstance(item, MapNode) else None
    return isinstance(name, ScalarNode) and name.text == ROUTE
