import pytest
from httpx2 import AsyncClient

from app import models
from app.database import Database


async def test_the_root_says_hello(client: AsyncClient) -> None:
    response = await client.get("/")
    assert response.json() == {"Hello": "World"}


async def create(client: AsyncClient, name: str = "lamp") -> int:
    response = await client.post("/items", json={"name": name})
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def test_a_created_item_is_where_the_answer_says(client: AsyncClient) -> None:
    created = await client.post("/items", json={"name": "lamp", "description": "red"})
    assert created.status_code == 201
    found = await client.get(created.headers["Location"])
    assert found.status_code == 200
    expected = {"id": created.json()["id"], "name": "lamp", "description": "red"}
    assert created.json() == found.json() == expected


async def test_a_name_that_is_taken_is_a_conflict(client: AsyncClient) -> None:
    lamp = await create(client, "lamp")
    other = await create(client, "Lamp")
    name = {"name": "lamp"}
    assert (await client.post("/items", json=name)).status_code == 409
    assert (await client.patch(f"/items/{other}", json=name)).status_code == 409
    assert (await client.patch(f"/items/{lamp}", json=name)).status_code == 200


async def test_pages_have_every_item_once(client: AsyncClient) -> None:
    created = [await create(client, f"item {number}") for number in range(5)]
    found, after = [], created[0] - 1
    while after is not None:
        page = await client.get("/items", params={"limit": 2, "after": after})
        found += [item["id"] for item in page.json()["items"]]
        after = page.json()["next"]
    assert found == created


async def test_an_item_from_before_a_rule_is_listed(
    client: AsyncClient, database: Database
) -> None:
    async with database.session() as session:
        session.add(models.Item(name=""))
    response = await client.get("/items")
    assert [item["name"] for item in response.json()["items"]] == [""]


async def test_a_change_leaves_the_rest_as_it_is(client: AsyncClient) -> None:
    item_id = await create(client, "lamp")
    expected = {"id": item_id, "name": "lamp", "description": None}
    path = f"/items/{item_id}"
    for change in ({"description": "red"}, {"name": "light"}, {"description": None}):
        expected |= change
        assert (await client.patch(path, json=change)).json() == expected
        assert (await client.get(path)).json() == expected


async def test_a_deleted_item_is_gone(client: AsyncClient) -> None:
    path = f"/items/{await create(client)}"
    assert (await client.get(path)).status_code == 200
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_what_is_not_there_is_a_404(client: AsyncClient) -> None:
    path = f"/items/{2**31 - 1}"
    assert (await client.get(path)).status_code == 404
    assert (await client.patch(path, json={"name": "lamp"})).status_code == 404
    assert (await client.delete(path)).status_code == 404


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", None, 5])
async def test_what_is_no_name_is_refused(client: AsyncClient, name: object) -> None:
    path = f"/items/{await create(client)}"
    assert (await client.post("/items", json={"name": name})).status_code == 422
    assert (await client.patch(path, json={"name": name})).status_code == 422


@pytest.mark.parametrize(
    "name", ["日本語 🦄", "'; DROP TABLE items; --", " a ", "\n%s"]
)
async def test_a_name_is_kept_as_it_is(client: AsyncClient, name: str) -> None:
    found = await client.get(f"/items/{await create(client, name)}")
    assert found.json()["name"] == name


async def test_the_count_follows_creations_and_deletions(client: AsyncClient) -> None:
    async def count() -> object:
        return (await client.get("/items/all/count")).json()["count"]

    assert await count() == 0
    lamp = await create(client, "lamp")
    await create(client, "light")
    assert await count() == 2
    await client.delete(f"/items/{lamp}")
    assert await count() == 1
