from httpx2 import AsyncClient


async def test_the_root_says_hello(client: AsyncClient) -> None:
    response = await client.get("/")
    assert response.json() == {"Hello": "World"}


async def test_an_item_is_read(client: AsyncClient) -> None:
    response = await client.get("/items/5", params={"q": "somequery"})
    assert response.status_code == 200
    assert response.json() == {"item_id": 5, "q": "somequery"}


async def test_an_item_needs_no_query(client: AsyncClient) -> None:
    response = await client.get("/items/5")
    assert response.json() == {"item_id": 5, "q": None}


async def test_an_item_id_is_a_number(client: AsyncClient) -> None:
    response = await client.get("/items/x")
    assert response.status_code == 422
