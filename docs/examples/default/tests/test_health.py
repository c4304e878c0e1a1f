import pytest
from httpx2 import AsyncClient


@pytest.mark.parametrize("probe", ["live", "ready"])
async def test_the_service_is_well(client: AsyncClient, probe: str) -> None:
    response = await client.get(f"/health/{probe}")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
