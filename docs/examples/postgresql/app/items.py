"""An example of a resource: replace it with what the service is for."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import MISSING, BaseModel, ConfigDict, StringConstraints
from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app import models
from app.cache import CacheDep
from app.database import DatabaseDep

Responses = dict[int | str, dict[str, Any]]
NOT_DECODED: Responses = {400: {"description": "The body is no JSON in UTF-8"}}
NOT_FOUND: Responses = {404: {"description": "No such item"}}
CONFLICT: Responses = {409: {"description": "The name is taken"}}
UNAVAILABLE: Responses = {503: {"description": "The database is not available"}}

router = APIRouter(prefix="/items", tags=["items"], responses=UNAVAILABLE)

ItemId = Annotated[int, Path(ge=1, le=2**31 - 1)]
# Not every database accepts a NUL character.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Description = Annotated[Text, StringConstraints(max_length=2000)]


class NewItem(BaseModel):
    name: Name
    description: Description | None = None


class ItemChange(BaseModel):
    """Fields that are left out stay as they are."""

    name: Name | MISSING = MISSING
    description: Description | MISSING | None = MISSING


class Item(BaseModel):
    """An item as it is, without the rules for requests: older items may not keep newer rules."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str | None


class ItemPage(BaseModel):
    items: list[Item]
    # The value of `after` for the next page, null on the last one.
    next: int | None


class ItemCount(BaseModel):
    count: int


# Built once, because building a statement takes longer than the database takes to answer it.
# They select from the table, because plain rows cost less than objects that a session tracks.
ROWS = select(models.Item.__table__)
BY_ID = ROWS.where(models.Item.id == bindparam("id"))
PAGE = (
    ROWS.where(models.Item.id > bindparam("after"))
    .order_by(models.Item.id)
    .limit(bindparam("limit"))
)
COUNT = select(func.count().label("count")).select_from(models.Item)

# Raise the number when the fields of ItemCount change: older entries have others.
COUNT_KEY = "items:count:1"


@router.post("", status_code=201, responses=NOT_DECODED | CONFLICT)
async def create_item(
    new: NewItem,
    request: Request,
    response: Response,
    database: DatabaseDep,
    cache: CacheDep,
) -> Item:
    item = models.Item(**new.model_dump())
    async with cache.changing(COUNT_KEY), database.session() as session:
        session.add(item)
        await flush(session)
    response.headers["Location"] = f"{request.url.path}/{item.id}"
    return Item.model_validate(item)


@router.get("")
async def read_items(
    database: DatabaseDep,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> ItemPage:
    """List items in the order of their ids, beginning after the id `after`."""
    rows = await database.rows(PAGE, {"after": after, "limit": limit + 1})
    items = [Item.model_validate(row) for row in rows[:limit]]
    return ItemPage(items=items, next=items[-1].id if len(rows) > limit else None)


# Not /count, which for other methods would be the path of an item.
@router.get("/all/count")
async def count_items(database: DatabaseDep, cache: CacheDep) -> ItemCount:
    """Count the items. The database reads all of them for it, so the count is cached."""

    async def load() -> str:
        [[count]] = await database.rows(COUNT)
        return ItemCount(count=count).model_dump_json()

    return await cache.read(COUNT_KEY, load, ItemCount.model_validate_json)


@router.get("/{item_id}", responses=NOT_FOUND)
async def read_item(item_id: ItemId, database: DatabaseDep) -> Item:
    rows = await database.rows(BY_ID, {"id": item_id})
    if not rows:
        raise HTTPException(404, "No such item.")
    return Item.model_validate(rows[0])


@router.patch("/{item_id}", responses=NOT_DECODED | NOT_FOUND | CONFLICT)
async def change_item(
    item_id: ItemId, change: ItemChange, database: DatabaseDep
) -> Item:
    async with database.session() as session:
        item = await lock_item(session, item_id)
        for name, value in change.model_dump().items():
            setattr(item, name, value)
        await flush(session)
    return Item.model_validate(item)


@router.delete("/{item_id}", status_code=204, responses=NOT_FOUND)
async def delete_item(item_id: ItemId, database: DatabaseDep, cache: CacheDep) -> None:
    async with cache.changing(COUNT_KEY), database.session() as session:
        await session.delete(await lock_item(session, item_id))


async def lock_item(session: AsyncSession, item_id: int) -> models.Item:
    """Return the item, locked against changes by others until this transaction ends."""
    item = await session.get(models.Item, item_id, with_for_update=True)
    if item is None:
        raise HTTPException(404, "No such item.")
    return item


async def flush(session: AsyncSession) -> None:
    """Send the changes, and respond with 409 if another item has the name."""
    try:
        await session.flush()
    except IntegrityError as error:
        # Another constraint that is broken is an error of this code.
        if "uq_items_name" not in str(error.orig):
            raise
        raise HTTPException(409, "The name is taken.") from error
