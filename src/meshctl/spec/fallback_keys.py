"""The keys of fallbacks.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.policy_schema import Fallback, FallbackStrategy
from meshctl.spec.shapes import Boolean, Choice, Duration, Integer, Key, Table, Text
from meshctl.spec.values import format_duration

_BUILT_IN = Fallback(strategy="static")
_MIB = 1 << 20

FALLBACK = Table(
    id="fallback",
    title="a fallback",
    doc=(
        "What a caller gets in place of a failure (5xx) that is left after all retries, or while the circuit is open. "
        "Only for GET, and of HTTP services. The answer carries `x-meshctl-fallback`."
    ),
    keys=(
        Key(
            name="strategy",
            shape=Choice(values=get_args(FallbackStrategy)),
            doc="`cached_response` repeats the last good answer to the same GET, `static` gives `status` and `body`.",
            required=True,
        ),
        Key(
            name="status",
            shape=Integer(minimum=200, maximum=599),
            doc="The status of the static answer.",
            default=_BUILT_IN.status,
        ),
        Key(name="body", shape=Text(), doc="The body of the static answer.", default=_BUILT_IN.body),
        Key(
            name="content_type",
            shape=Text(what="a media type", pattern=r"[!-~]+/[ -~]+", hint="for example `application/json`"),
            doc="The content type of the static answer.",
            default=_BUILT_IN.content_type,
        ),
        Key(
            name="max_age",
            shape=Duration(),
            doc="How old a cached answer may be.",
            default=format_duration(_BUILT_IN.max_age),
        ),
        Key(
            name="max_entries",
            shape=Integer(minimum=1, maximum=100_000),
            doc="How many answers a listener of a caller's sidecar keeps of this service; the oldest goes first.",
            default=_BUILT_IN.max_entries,
        ),
        Key(
            name="max_bytes",
            shape=Integer(minimum=1, maximum=256 * _MIB),
            doc="How many bytes these may have together.",
            default=_BUILT_IN.max_bytes,
        ),
        Key(
            name="max_body_bytes",
            shape=Integer(minimum=1, maximum=16 * _MIB),
            doc="A body that is larger passes unbuffered and is not kept; neither is one that streams without an end.",
            default=_BUILT_IN.max_body_bytes,
        ),
        Key(
            name="share_credentials",
            shape=Boolean(),
            doc=(
                "`true`: an answer may be repeated to whoever asks. `false`: only to who sends the same "
                "`Authorization` and `Cookie`."
            ),
            default=_BUILT_IN.share_credentials,
        ),
    ),
)
