import errno
import json
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from app.errors import HANDLERS, Unavailable
from app.logs import JsonFormatter
from app.service import Service

JSON = {"Content-Type": "application/json"}


class Order(BaseModel):
    amount: int


@pytest.fixture
async def orders() -> AsyncGenerator[AsyncClient]:
    """A client of a service that takes orders, but can't deliver them."""
    service = FastAPI(exception_handlers=HANDLERS)

    @service.post("/orders")
    async def create(order: Order) -> None:
        raise Unavailable("The warehouse does not answer.")

    @service.post("/amounts")
    async def add(amounts: dict[str, list[int]]) -> int:
        return sum(map(sum, amounts.values()))

    @service.post("/anything")
    async def keep(anything: Annotated[Any, Body()]) -> None:
        pass

    transport = ASGITransport(service)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    "amount", ["NaN", "Infinity", "1e999", r'"\ud800"', '"secret-password"']
)
async def test_a_refused_value_is_a_422_that_does_not_repeat_it(
    orders: AsyncClient, amount: str
) -> None:
    body = '{"amount": ' + amount + "}"
    response = await orders.post("/orders", content=body, headers=JSON)
    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert problem["loc"] == ["body", "amount"]
    assert "input" not in problem
    assert "secret" not in response.text


async def test_a_missing_dependency_is_a_503_that_says_so(orders: AsyncClient) -> None:
    response = await orders.post("/orders", json={"amount": 1})
    assert response.status_code == 503
    assert response.json() == {"detail": "The warehouse does not answer."}
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize("count", [1, 100])
async def test_up_to_a_hundred_problems_are_listed(
    orders: AsyncClient, count: int
) -> None:
    response = await orders.post("/amounts", json={"a": [1, *[""] * count]})
    assert response.status_code == 422
    problems = response.json()["detail"]
    assert len(problems) == count
    assert problems[0]["loc"] == ["body", "a", 1]


async def test_more_problems_are_only_counted(orders: AsyncClient) -> None:
    response = await orders.post("/amounts", json={"a": [""] * 101})
    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert problem["type"] == "too_many_problems"
    assert problem["loc"] == ["body"]
    assert problem["msg"].startswith("101 problems")


async def test_a_long_name_is_not_repeated_with_each_problem(
    orders: AsyncClient,
) -> None:
    response = await orders.post("/amounts", json={"a" * 10**5: [""] * 100})
    assert response.status_code == 422
    assert len(response.content) < 10**5


async def test_a_million_wrong_items_are_not_made_into_a_list(
    orders: AsyncClient,
) -> None:
    body = json.dumps({"a": [""] * 10**6}, separators=(",", ":"))
    tracemalloc.start()
    response = await orders.post("/amounts", content=body, headers=JSON)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == 422
    # What Python allocates. A list of all would take more than 500 MB.
    assert most < 50 * 2**20


@pytest.mark.parametrize("nested", ["[" * 100_000, "[" * 100_000 + "]" * 100_000])
async def test_json_of_a_hundred_thousand_levels_is_refused(
    orders: AsyncClient, nested: str
) -> None:
    response = await orders.post("/anything", content=nested, headers=JSON)
    assert response.status_code in {400, 422}


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 503), (errno.ENOENT, 400)]
)
async def test_an_upload_for_which_there_is_no_space_is_a_503_with_one_line(
    caplog: pytest.LogCaptureFixture, number: int, status: int
) -> None:
    service = Service()

    @service.post("/uploads")
    async def upload(order: Order) -> None:
        pass

    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        """Fails as a form does whose file can't be written."""

        async def fail() -> Message:
            raise OSError(number, "Not written")

        await service(scope, fail, send)

    transport = ASGITransport(full)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/uploads", content=b"x")
    assert response.status_code == status
    lines = [r for r in caplog.records if r.name == "app.errors"]
    assert len(lines) == (status == 503)
    assert not any("Traceback" in JsonFormatter().format(line) for line in lines)
