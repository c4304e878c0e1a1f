from collections.abc import AsyncGenerator

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import BaseModel

from app.errors import HANDLERS, Unavailable


class Order(BaseModel):
    amount: int


@pytest.fixture
async def orders() -> AsyncGenerator[AsyncClient]:
    """A client of a service that takes orders, but can't deliver them."""
    service = FastAPI(exception_handlers=HANDLERS)

    @service.post("/orders")
    async def create(order: Order) -> None:
        raise Unavailable("The warehouse does not answer.")

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
    headers = {"Content-Type": "application/json"}
    response = await orders.post("/orders", content=body, headers=headers)
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
