"""The page of the API says all that the table of routes says."""

from meshctl.api.reference import api_reference
from meshctl.api.routes import BASE, ROUTES


def test_every_call_and_its_shapes_are_on_the_page() -> None:
    page = api_reference()
    for route in ROUTES:
        assert f"### {route.method} {BASE}{route.path}\n" in page
        for shape in (route.request, route.response):
            assert shape is None or f"### {shape.__name__}\n" in page
        for parameter in route.query:
            assert f"- `{parameter.name}` ({parameter.kind})" in page


def test_types_are_in_the_words_of_json() -> None:
    page = api_reference()
    assert "|`pid`|integer or null|" in page
    assert "|`services`|list of [ServiceStatus](#servicestatus)|" in page
    assert "|`upstreams`|object of integer|" in page
    assert "|`health`|`healthy`, `unhealthy`, `unknown`|" in page
    assert "|any|" not in page
