import asyncio
from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from app.service import Service


def test_an_application_that_is_started_again_streams_to_the_end() -> None:
    service = Service()

    @service.get("/events")
    async def read_events() -> StreamingResponse:
        async def events() -> AsyncGenerator[str]:
            for number in range(3):
                await asyncio.sleep(0)
                yield f"data: {number}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    for _ in range(2):
        with TestClient(service) as client:
            assert client.get("/events").text.count("data:") == 3
