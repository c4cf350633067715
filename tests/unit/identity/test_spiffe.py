"""SPIFFE IDs are made and read as the specification says."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.identity.spiffe import SpiffeId, parse_service, parse_spiffe_id, spiffe_id, trust_domain_id

TRUST_DOMAINS = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=255)
SEGMENTS = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=60).filter(
    lambda text: text not in {".", ".."}
)


def test_a_service_is_one_path_segment_below_its_trust_domain() -> None:
    assert spiffe_id("shop.local", "orders") == "spiffe://shop.local/orders"
    assert trust_domain_id("shop.local") == "spiffe://shop.local"


@settings(deadline=None)
@given(trust_domain=TRUST_DOMAINS, service=SEGMENTS)
def test_every_id_that_is_made_is_read_back(trust_domain: str, service: str) -> None:
    made = spiffe_id(trust_domain, service)
    assert parse_spiffe_id(made) == SpiffeId(trust_domain, f"/{service}")
    assert parse_service(made, trust_domain) == service
    assert str(parse_spiffe_id(made)) == made


@settings(deadline=None)
@given(trust_domain=TRUST_DOMAINS, path=st.lists(SEGMENTS, max_size=5))
def test_ids_with_any_number_of_segments_are_read(trust_domain: str, path: list[str]) -> None:
    uri = "/".join([f"spiffe://{trust_domain}", *path])
    assert str(parse_spiffe_id(uri)) == uri


@settings(deadline=None)
@given(st.text())
def test_reading_either_gives_the_text_back_or_says_why_not(text: str) -> None:
    try:
        assert str(parse_spiffe_id(f"spiffe://{text}")) == f"spiffe://{text}"
    except ValueError as error:
        assert str(error)  # noqa: PT017 - that it raises nothing else is the rule


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "starts with spiffe://"),
        ("http://shop/a", "starts with spiffe://"),
        ("SPIFFE://shop/a", "starts with spiffe://"),
        ("spiffe:///a", "not empty"),
        ("spiffe://Shop/a", "a-z"),
        ("spiffe://shop:80/a", "a-z"),
        ("spiffe://user@shop/a", "a-z"),
        ("spiffe://sh%6fp/a", "a-z"),
        ("spiffe://shop\n/a", "a-z"),
        (f"spiffe://{'a' * 256}/a", "at most 255 bytes"),
        ("spiffe://shop/", "neither empty nor relative"),
        ("spiffe://shop/a/", "neither empty nor relative"),
        ("spiffe://shop//a", "neither empty nor relative"),
        ("spiffe://shop/./a", "neither empty nor relative"),
        ("spiffe://shop/../a", "neither empty nor relative"),
        ("spiffe://shop/a?b", "holds only"),
        ("spiffe://shop/a#b", "holds only"),
        ("spiffe://shop/%41", "holds only"),
        ("spiffe://shop/\u00e4", "holds only"),
        (f"spiffe://shop/{'a' * 2048}", "at most 2048 bytes"),
    ],
)
def test_what_the_specification_forbids_is_refused_with_the_reason(uri: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_spiffe_id(uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("spiffe://other/orders", "of trust domain other, not shop"),
        ("spiffe://shop", "names no service"),
        ("spiffe://shop/ns/orders", "names no service"),
    ],
)
def test_only_one_segment_of_the_own_trust_domain_names_a_service(uri: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_service(uri, "shop")


@pytest.mark.parametrize("service", ["", ".", "..", "a/b", "a b"])
def test_no_id_is_made_of_a_name_that_cannot_be_in_one(service: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        spiffe_id("shop", service)
    with pytest.raises(ValueError, match="trust domain"):
        spiffe_id("", "orders")


def test_an_id_that_would_be_too_long_is_not_made() -> None:
    with pytest.raises(ValueError, match="at most 2048 bytes"):
        spiffe_id("shop", "a" * 2048)
