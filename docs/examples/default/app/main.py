"""The application, served as `app.main:app`: add routers, middleware and what it opens here."""

from app import items
from app.factory import create_app

app = create_app()
app.include_router(items.router)


@app.get("/")
async def read_root() -> dict[str, str]:
    return {"Hello": "World"}
