"""Reads and writes rows without the template: on a bare driver, and with the ORM's defaults.

The driver's application sends one statement for each row. It holds ten connections; with SQLite, ten that
read and one that writes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

URL = os.environ["DATABASE_URL"]
DATABASE = URL.partition(":")[0]
SIZE = 10


class NewItem(BaseModel):
    name: str
    description: str | None = None


class Item(NewItem):
    model_config = ConfigDict(from_attributes=True)

    id: int


class Table(NamedTuple):
    read: Callable[[int], Awaitable[Any]]
    write: Callable[[str, str | None], Awaitable[int]]


@asynccontextmanager
async def postgresql() -> AsyncIterator[Table]:
    import asyncpg

    async with asyncpg.create_pool(URL, min_size=SIZE, max_size=SIZE) as pool:

        async def read(item_id: int) -> Any:
            return await pool.fetchrow("SELECT id, name, description FROM items WHERE id = $1", item_id)

        async def write(name: str, description: str | None) -> int:
            insert = "INSERT INTO items (name, description) VALUES ($1, $2) RETURNING id"
            return int(await pool.fetchval(insert, name, description))

        yield Table(read, write)


@asynccontextmanager
async def mysql() -> AsyncIterator[Table]:
    import asyncmy

    url = urlsplit(URL)
    async with asyncmy.create_pool(
        minsize=SIZE,
        maxsize=SIZE,
        autocommit=True,
        host=url.hostname,
        port=url.port,
        user=url.username,
        password=url.password,
        db=url.path[1:],
    ) as pool:

        async def read(item_id: int) -> Any:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("SELECT id, name, description FROM items WHERE id = %s", (item_id,))
                return await cursor.fetchone()

        async def write(name: str, description: str | None) -> int:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                insert = "INSERT INTO items (name, description) VALUES (%s, %s)"
                await cursor.execute(insert, (name, description))
                return int(cursor.lastrowid)

        yield Table(read, write)


@asynccontextmanager
async def sqlite() -> AsyncIterator[Table]:
    import aiosqlite

    file = URL.removeprefix("sqlite:///")
    connections = [await aiosqlite.connect(file, isolation_level=None) for _ in range(SIZE + 1)]
    writer, *readers = connections
    free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
    for reader in readers:
        free.put_nowait(reader)
    alone = asyncio.Lock()

    async def read(item_id: int) -> Any:
        connection = await free.get()
        try:
            statement = "SELECT id, name, description FROM items WHERE id = ?"
            [row] = await connection.execute_fetchall(statement, (item_id,))
            return row
        finally:
            free.put_nowait(connection)

    async def write(name: str, description: str | None) -> int:
        async with alone:
            insert = "INSERT INTO items (name, description) VALUES (?, ?) RETURNING id"
            [[item_id]] = await writer.execute_fetchall(insert, (name, description))
            return int(item_id)

    try:
        yield Table(read, write)
    finally:
        for connection in connections:
            await connection.close()


@asynccontextmanager
async def opened(_: FastAPI) -> AsyncIterator[dict[str, Table]]:
    async with {"postgresql": postgresql, "mysql": mysql, "sqlite": sqlite}[DATABASE]() as table:
        yield {"table": table}


driver = FastAPI(lifespan=opened)


@driver.get("/items/{item_id}")
async def read_item(item_id: int, request: Request) -> Item:
    row = await request.state.table.read(item_id)
    if row is None:
        raise HTTPException(404)
    number, name, description = row
    return Item(id=number, name=name, description=description)


@driver.post("/items", status_code=201)
async def create_item(new: NewItem, request: Request) -> Item:
    item_id = await request.state.table.write(new.name, new.description)
    return Item(id=item_id, name=new.name, description=new.description)


class Base(DeclarativeBase):  # type: ignore[misc, unused-ignore]
    pass


class Row(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str | None]


DRIVERS = {"postgresql": "asyncpg", "mysql": "asyncmy", "sqlite": "aiosqlite"}
sessions = async_sessionmaker(
    create_async_engine(make_url(URL).set(drivername=f"{DATABASE}+{DRIVERS[DATABASE]}"))
)

orm = FastAPI()


@orm.get("/items/{item_id}")
async def get_item(item_id: int) -> Item:
    async with sessions.begin() as session:
        row = await session.get(Row, item_id)
        if row is None:
            raise HTTPException(404)
        return Item.model_validate(row)


@orm.post("/items", status_code=201)
async def add_item(new: NewItem) -> Item:
    async with sessions.begin() as session:
        row = Row(**new.model_dump())
        session.add(row)
        await session.flush()
        return Item.model_validate(row)
