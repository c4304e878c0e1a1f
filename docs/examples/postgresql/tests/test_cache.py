import asyncio

import pytest
from redis.exceptions import RedisError

from app.cache import POOL_SIZE, Cache, open_cache
from app.settings import Settings


class Source:
    """Something slow to read, which counts its reads."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.reads = 0

    async def load(self) -> str:
        self.reads += 1
        return self.value


def check(text: str) -> str:
    if text not in {"red", "blue"}:
        raise ValueError(text)
    return text


async def test_an_entry_is_loaded_once(cache: Cache) -> None:
    source = Source("red")
    assert await cache.read("lamp", source.load, check) == "red"
    assert await cache.read("lamp", source.load, check) == "red"
    assert source.reads == 1


async def test_readers_wait_for_a_connection_to_a_busy_cache(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source("red")
    await cache.read("lamp", source.load, check)
    reads = [cache.read("lamp", source.load, check) for _ in range(5 * POOL_SIZE)]
    assert await asyncio.gather(*reads) == ["red"] * len(reads)
    assert source.reads == 1
    assert caplog.records == []


async def test_a_change_ends_the_entry(cache: Cache) -> None:
    source = Source("red")
    await cache.read("lamp", source.load, check)
    async with cache.changing("lamp"):
        source.value = "blue"
    assert await cache.read("lamp", source.load, check) == "blue"


async def test_what_was_read_before_a_change_is_not_kept_after_it(cache: Cache) -> None:
    source = Source("red")

    async def load_while_it_is_changed() -> str:
        loaded = await source.load()
        async with cache.changing("lamp"):
            source.value = "blue"
        return loaded

    assert await cache.read("lamp", load_while_it_is_changed, check) == "red"
    assert await cache.read("lamp", source.load, check) == "blue"


async def test_what_is_read_during_two_changes_is_not_kept(cache: Cache) -> None:
    source = Source("red")
    async with cache.changing("lamp"):
        async with cache.changing("lamp"):
            pass
        assert await cache.read("lamp", source.load, check) == "red"
        source.value = "blue"
    assert await cache.read("lamp", source.load, check) == "blue"


async def test_a_change_without_a_mark_ends_the_entry(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RedisError

    source = Source("red")
    monkeypatch.setattr(cache, "begin_change", fail)
    async with cache.changing("lamp"):
        async with open_cache(Settings.read()) as other:
            assert await other.read("lamp", source.load, check) == "red"
        source.value = "blue"
    assert not cache.outdated
    async with open_cache(Settings.read()) as other:
        assert await other.read("lamp", source.load, check) == "blue"


GARBAGE: list[str | bytes] = ["", "red", "=green", "=", b"\xff\xfe", b"=red\xff"]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_replaced_by_an_entry(
    cache: Cache, caplog: pytest.LogCaptureFixture, garbage: str | bytes
) -> None:
    await cache.client.set("lamp", garbage)
    source = Source("red")
    assert await cache.read("lamp", source.load, check) == "red"
    assert await cache.read("lamp", source.load, check) == "red"
    assert source.reads == 1
    assert caplog.records == []


async def test_a_value_of_another_type_is_replaced_by_an_entry(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    await cache.client.hset("lamp", "colour", "green")
    source = Source("red")
    assert await cache.read("lamp", source.load, check) == "red"
    assert await cache.read("lamp", source.load, check) == "red"
    assert source.reads == 1
    assert caplog.records == []


async def test_a_change_ends_a_value_of_another_type(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    await cache.client.hset("lamp", "colour", "green")
    async with cache.changing("lamp"):
        pass
    assert await cache.client.exists("lamp") == 0
    assert caplog.records == []


async def test_what_can_not_be_parsed_when_it_is_loaded_is_an_error(
    cache: Cache,
) -> None:
    with pytest.raises(ValueError, match="green"):
        await cache.read("lamp", Source("green").load, check)


async def test_while_the_cache_is_away_the_source_is_read_and_that_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing listens on port 1.
    monkeypatch.setenv("CACHE_URL", "redis://127.0.0.1:1")
    source = Source("red")
    async with open_cache(Settings.read()) as away:
        for _ in range(3):
            async with away.changing("lamp"):
                assert await away.read("lamp", source.load, check) == "red"
    assert source.reads == 3
    assert [record.name for record in caplog.records] == ["app.cache"]
