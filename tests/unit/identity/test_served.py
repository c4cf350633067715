"""What Envoy says of its certificates is read."""

from __future__ import annotations

import json

import pytest

from meshctl.identity.served import read_served_serials


def answer(*serials: str) -> str:
    return json.dumps(
        {
            "certificates": [
                {"ca_cert": [{"path": "<inline>", "serial_number": "ff"}], "cert_chain": [{"serial_number": serial}]}
                for serial in serials
            ]
        }
    )


@pytest.mark.parametrize(
    ("text", "serials"),
    [
        (answer(), set()),
        ("{}", set()),
        (answer("1a", "001A"), {f"{0x1A:032x}"}),
        (answer("1a", "1b"), {f"{0x1A:032x}", f"{0x1B:032x}"}),
        ('{"certificates": [{"ca_cert": [{"serial_number": "ff"}]}, {"cert_chain": []}]}', set()),
    ],
    ids=["no certificates", "empty", "one, written in two ways", "two", "roots only"],
)
def test_the_serials_that_a_sidecar_proves_itself_with_are_read(text: str, serials: set[str]) -> None:
    assert read_served_serials(text) == serials


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"certificates": 1}',
        '{"certificates": [1]}',
        '{"certificates": [{"cert_chain": [{}]}]}',
        '{"certificates": [{"cert_chain": {"a": 1}}]}',
        '{"certificates": [{"cert_chain": [{"serial_number": 1}]}]}',
        answer("xyz"),
        answer(""),
    ],
)
def test_any_other_answer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_served_serials(text)
