import asyncio
import json
import logging
import sys

import pytest
from httpx2 import ASGITransport, AsyncClient

from app.access_log import PIECE
from app.logs import JsonFormatter, formatter
from app.service import Service


def client_of(service: Service) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(service), base_url="http://test")


async def test_a_request_id_comes_back(client: AsyncClient) -> None:
    headers = {"X-Request-ID": "abc-123"}
    response = await client.get("/health/live", headers=headers)
    assert response.headers["X-Request-ID"] == "abc-123"


async def test_a_request_without_a_valid_id_gets_one(client: AsyncClient) -> None:
    first = await client.get("/health/live")
    headers = {"X-Request-ID": 'not "valid"'}
    second = await client.get("/health/live", headers=headers)
    assert len(first.headers["X-Request-ID"]) == 32
    assert len(second.headers["X-Request-ID"]) == 32
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


async def test_a_request_is_logged_without_its_query(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    # The line of a probe has this level.
    caplog.set_level(logging.DEBUG)
    await client.get("/health/live", params={"q": "secret"})
    [record] = [r for r in caplog.records if r.name == "access"]
    assert record.getMessage() == "GET /health/live 200"
    assert "secret" not in JsonFormatter().format(record)


def log_as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have only a handler for stdout listen. pytest adds its own when a test begins."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    stdout = logging.StreamHandler(sys.stdout)
    stdout.setFormatter(formatter())
    monkeypatch.setattr(logging.root, "handlers", [stdout])


async def test_in_production_a_request_is_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log_as_in_production(monkeypatch)
    async with client_of(Service()) as client:
        headers = {"X-Request-ID": "abc-123"}
        await client.get("/%0A", params={"q": "secret"}, headers=headers)
        await client.get("/%22")
        # Written after the event loop has had its turn.
        await asyncio.sleep(0)
    lines = capsysbinary.readouterr().out.splitlines()
    first, second = [line for line in lines if b'"logger":"access"' in line]
    assert b"secret" not in first
    line = json.loads(first)
    assert line["message"] == "GET /%0A 404"
    assert (line["status"], line["request_id"]) == (404, "abc-123")
    assert json.loads(second)["path"] == '/"'


@pytest.mark.parametrize("character", ["a", "%22", "%0A", "é", "🦄"])
async def test_however_long_a_request_is_its_line_is_short_enough_to_stay_whole(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    character: str,
) -> None:
    log_as_in_production(monkeypatch)
    transport = ASGITransport(Service(), client=("é" * 5000, 1))
    path, headers = f"/{character * 5000}/end", {"X-Request-ID": "1" * 128}
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        await client.request("M" * 5000, path, headers=headers)
        await asyncio.sleep(0)
        # With a handler of one's own, lines are written in another way.
        logging.root.addHandler(logging.NullHandler())
        await client.request("M" * 5000, path, headers=headers)
    lines = capsysbinary.readouterr().out.splitlines()
    fast, slow = [line for line in lines if b'"logger":"access"' in line]
    for line in (fast, slow):
        assert len(line) < PIECE
        assert json.loads(line)["path"].endswith("/end")


async def test_a_handler_of_ones_own_gets_each_request_in_production_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_as_in_production(monkeypatch)
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logging.root.addHandler(Keep())
    async with client_of(Service()) as client:
        await client.get("/nowhere")
    [message] = [r.getMessage() for r in records if r.name == "access"]
    assert message == "GET /nowhere 404"
