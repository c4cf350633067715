"""The keys of routing: rules of a service, sticky splits, mirroring.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.call_keys import ROUTE_RETRY_POLICY, ROUTE_TIMEOUTS
from meshctl.spec.routing_schema import REDIRECT_STATUSES, Mirror, RedirectTo
from meshctl.spec.shapes import AnyOf, Boolean, Choice, Duration, Integer, Key, ListOf, MapOf, Percentage, Table, Text

_VERSION = Text(what="the name of a version")
_PATH = Text(
    what="a path that begins with `/`",
    pattern=r"/(?:(?![?#])[!-~])*",
    code="bad-path",
    hint="write a path such as `/` or `/api`, with no query",
)
_HOST = Text(
    what="a host",
    pattern=r"[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?(?::\d{1,5})?",
    code="bad-address",
    hint="write a host name, with a port if it needs one: `api.example.com` or `localhost:8080`",
)
# Source of what a header's name and value may hold: RFC 9110, sections 5.1 and 5.5.
HEADER_NAME = Text(
    what="a header name",
    pattern=r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}",
    code="bad-name",
    hint="the name of a header holds letters, digits and dashes",
)
_CHANGED_NAME = Text(
    what="a header name",
    pattern=r"(?!(?i:host|content-length|transfer-encoding|connection)$)[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}",
    code="bad-name",
    hint="the host is changed by `rewrite: {host: ...}`; lengths and connections are the sidecar's own affair",
)
HEADER_VALUE = Text(what="a text on one line", pattern=r"[\t -~]{0,4000}", code="bad-text")
_QUERY_NAME = Text(what="a parameter name", pattern=r"[^&=#\s]{1,200}", code="bad-name")
COOKIE_NAME = Text(what="a cookie name", pattern=r"[!#$&'*+.^_`|~0-9A-Za-z-]{1,100}", code="bad-name")
_METHOD = Text(
    what="a method",
    pattern=r"[A-Z][A-Z0-9-]{0,19}",
    code="bad-choice",
    hint="write methods in capitals, such as `GET`",
)
_REGEX = Text(what="a regular expression")

PATH_MATCH = Table(
    id="path_match",
    title="`path`",
    doc="How the path of a request must be. One of the keys.",
    keys=(
        Key(name="exact", shape=_PATH, doc="The whole path."),
        Key(name="prefix", shape=_PATH, doc="Its first segments: `/api` matches `/api` and `/api/x`, not `/apix`."),
        Key(name="regex", shape=_REGEX, doc="A regular expression (RE2) that the whole path matches."),
    ),
)

_VALUE_DOC = "What a value must be: a text, which is the whole of it, or one of the keys."
HEADER_MATCH = Table(
    id="header_match",
    title="the condition of a header",
    doc=_VALUE_DOC,
    keys=(
        Key(name="exact", shape=HEADER_VALUE, doc="The whole value."),
        Key(name="regex", shape=_REGEX, doc="A regular expression (RE2) that the whole value matches."),
        Key(name="present", shape=Boolean(), doc="Whether the header is there, whatever its value."),
    ),
)
QUERY_MATCH = Table(
    id="query_match",
    title="the condition of a query parameter",
    doc=_VALUE_DOC,
    keys=(
        Key(name="exact", shape=HEADER_VALUE, doc="The whole value."),
        Key(name="regex", shape=_REGEX, doc="A regular expression (RE2) that the whole value matches."),
        Key(name="present", shape=Boolean(only=True), doc="The parameter is there, whatever its value."),
    ),
)

MATCH = Table(
    id="match",
    title="`match`",
    doc="What a request must be like. All conditions hold at once; none at all matches every request.",
    keys=(
        Key(name="path", shape=AnyOf(shapes=(_PATH, PATH_MATCH)), doc="The path: a text is the whole of it."),
        Key(name="methods", shape=ListOf(item=_METHOD, minimum=1, maximum=20), doc="One of these methods."),
        Key(
            name="headers",
            shape=MapOf(name=HEADER_NAME, value=AnyOf(shapes=(HEADER_VALUE, HEADER_MATCH))),
            doc="Headers by name, each with its value or a condition.",
        ),
        Key(
            name="query",
            shape=MapOf(name=_QUERY_NAME, value=AnyOf(shapes=(HEADER_VALUE, QUERY_MATCH))),
            doc="Query parameters by name, each with its value or a condition.",
        ),
        Key(
            name="from",
            shape=ListOf(item=Text(what="the name of a service"), minimum=1),
            doc="The request comes from one of these services; `gateway` is the gateway.",
        ),
    ),
)

COOKIE = Table(
    id="sticky_cookie",
    title="`cookie`",
    doc="A cookie that the mesh gives to whoever has none.",
    keys=(
        Key(name="name", shape=COOKIE_NAME, doc="Its name.", required=True),
        Key(name="ttl", shape=Duration(), doc="How long it lives. Default: until the browser is closed."),
    ),
)
STICKY = Table(
    id="sticky",
    title="`sticky`",
    doc="What keeps a user on one version while traffic is split. One of the keys.",
    keys=(
        Key(name="cookie", shape=COOKIE, doc="A cookie, for users who come through the gateway."),
        Key(name="header", shape=HEADER_NAME, doc="A header that names the user, such as `x-user`."),
    ),
)
MIRROR = Table(
    id="mirror",
    title="`mirror`",
    doc="Copies of requests to a version whose answers are dropped. A copy carries `x-meshctl-mirrored: 1`.",
    keys=(
        Key(name="version", shape=_VERSION, doc="The version that gets the copies.", required=True),
        Key(
            name="percent",
            shape=Percentage(),
            doc="The share of the requests that is copied.",
            default=f"{Mirror(version='').percent:g}%",
        ),
    ),
)
REWRITE = Table(
    id="rewrite",
    title="`rewrite`",
    doc="What the service is asked for instead of what the caller asked for.",
    keys=(
        Key(name="prefix", shape=_PATH, doc="Takes the place of the prefix that the route matches."),
        Key(name="path", shape=_PATH, doc="Takes the place of the whole path; the query stays."),
        Key(name="host", shape=_HOST, doc="Takes the place of the host."),
    ),
)
REDIRECT = Table(
    id="redirect",
    title="`redirect`",
    doc="Sends the caller elsewhere; what is not written stays as it was asked for, the query always.",
    keys=(
        Key(name="path", shape=_PATH, doc="The path to ask for."),
        Key(name="host", shape=_HOST, doc="The host to ask."),
        Key(name="scheme", shape=Choice(values=("http", "https")), doc="The scheme to use."),
        Key(
            name="status",
            shape=Integer(minimum=min(REDIRECT_STATUSES), maximum=max(REDIRECT_STATUSES)),
            doc="301, 302, 303, 307 or 308; 301 and 308 may be remembered by clients; 307 and 308 keep the method.",
            default=RedirectTo().status,
        ),
    ),
)

_VALUES = MapOf(name=_CHANGED_NAME, value=HEADER_VALUE)
HEADER_CHANGES = Table(
    id="header_changes",
    title="changes of headers",
    doc="What is changed of headers.",
    keys=(
        Key(name="set", shape=_VALUES, doc="Headers to set; they replace what there is."),
        Key(name="add", shape=_VALUES, doc="Headers to add to what there is."),
        Key(name="remove", shape=ListOf(item=_CHANGED_NAME, maximum=100), doc="Headers to take away."),
    ),
)
HEADERS = Table(
    id="route_headers",
    title="`headers`",
    doc="Which headers are changed.",
    keys=(
        Key(name="request", shape=HEADER_CHANGES, doc="Headers of the request, before the service gets it."),
        Key(name="response", shape=HEADER_CHANGES, doc="Headers of the answer, before the caller gets it."),
    ),
)

SPLIT = MapOf(name=_VERSION, value=Percentage(whole=True))

SERVICE_ROUTE = Table(
    id="service_route",
    title="a route",
    doc=(
        "A rule for requests to a service; the first that matches wins, and what none matches goes by the service's "
        "own `split`. A route without `version`, `split` and `redirect` goes by it too."
    ),
    keys=(
        Key(
            name="name",
            shape=Text(
                what="a name of letters, digits and dashes",
                pattern=r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,60}[A-Za-z0-9])?",
                code="bad-name",
            ),
            doc="What the route is called in what the mesh shows. Default: its number.",
        ),
        Key(name="match", shape=MATCH, doc="Which requests. Default: all."),
        Key(name="version", shape=_VERSION, doc="The version that they go to."),
        Key(name="split", shape=SPLIT, doc="The share of each version; it must sum to 100."),
        Key(name="sticky", shape=STICKY, doc="What keeps a user on one version. Default: the service's."),
        Key(name="rewrite", shape=REWRITE, doc="What the service is asked for instead."),
        Key(name="redirect", shape=REDIRECT, doc="Sends the caller elsewhere instead."),
        Key(name="headers", shape=HEADERS, doc="Changes of headers."),
        Key(name="mirror", shape=MIRROR, doc="Copies of requests to a version. Default: the service's."),
        Key(
            name="timeout",
            shape=AnyOf(shapes=(Duration(zero=True), ROUTE_TIMEOUTS)),
            doc="How long callers wait, laid over the service's `timeout`.",
        ),
        Key(name="retry_policy", shape=ROUTE_RETRY_POLICY, doc="Laid over the service's, key by key."),
    ),
)

ROUTING_KEYS = (
    Key(
        name="routes",
        shape=ListOf(item=SERVICE_ROUTE, maximum=100),
        doc="Rules for requests, for all callers and the gateway; the first that matches wins.",
    ),
    Key(name="sticky", shape=STICKY, doc="What keeps a user on one version while traffic is split."),
    Key(name="mirror", shape=MIRROR, doc="Copies of requests to a version whose answers are dropped."),
)
"""Keys of a service beside ``split``."""
