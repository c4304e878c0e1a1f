import json
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import BaseModel

from app.errors import HANDLERS

JSON = {"Content-Type": "application/json"}


class Order(BaseModel):
    amount: int


@pytest.fixture
async def orders() -> AsyncGenerator[AsyncClient]:
    # Without a limit of the body.
    service = FastAPI(exception_handlers=HANDLERS)

    @service.post("/orders")
    async def create(order: Order) -> None:
        pass

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
