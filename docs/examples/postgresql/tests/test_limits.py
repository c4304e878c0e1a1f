import pydantic
import pytest
from httpx2 import AsyncClient
from limited_service import started

from app.limits import LimitSettings


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/openapi.json"])
@pytest.mark.parametrize(("shown", "status"), [("true", 200), ("false", 404)])
def test_a_variable_shows_or_hides_the_documentation(
    monkeypatch: pytest.MonkeyPatch, page: str, shown: str, status: int
) -> None:
    client = started(monkeypatch, API_DOCS=shown)
    assert client.get(page).status_code == status
    assert client.post("/bodies").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("example.com", 307),
        ("example.com:8000", 307),
        ("eu.example.org", 307),
        ("example.org", 400),
        ("example.com.attacker.net", 400),
    ],
)
def test_a_redirect_only_repeats_a_host_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, host: str, status: int
) -> None:
    client = started(monkeypatch, ALLOWED_HOSTS="example.com, *.example.org")
    response = client.get("/things", headers={"Host": host})
    assert response.status_code == status
    assert (host in response.headers.get("Location", "")) == (status == 307)


def test_a_probe_may_name_any_host_because_it_comes_by_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = started(monkeypatch, ALLOWED_HOSTS="example.com")
    headers = {"Host": "10.0.0.1:8000"}
    assert client.get("/health/live", headers=headers).status_code == 200
    assert client.get("/health/live/", headers=headers).status_code == 400


def test_every_host_is_allowed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    response = started(monkeypatch).get("/things", headers={"Host": "10.0.0.1:8000"})
    assert response.headers["Location"] == "http://10.0.0.1:8000/things/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_SIZE", "much"),
        ("MAX_BODY_SIZE", "-1"),
        ("ALLOWED_HOSTS", "https://example.com"),
        ("ALLOWED_HOSTS", "www.*.com"),
        ("API_DOCS", "perhaps"),
    ],
)
def test_a_wrong_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(pydantic.ValidationError, match=name.lower()):
        LimitSettings()


async def test_no_response_is_taken_for_another_type(client: AsyncClient) -> None:
    for path in ("/", "/nowhere"):
        response = await client.get(path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
