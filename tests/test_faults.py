"""Tests that the counting of `make faults` finds what was lost or stale, and nothing else."""

from typing import Any

from benchmarks.faults import Seen


def seen(*records: dict[str, Any]) -> Seen:
    """Return what the clients saw in a second of each of these requests and responses."""
    seen = Seen()
    for second, record in enumerate(records):
        seen.add({"sent": second, "seconds": 0.5, "method": "GET", "response": None, **record})
    return seen


CREATED = {"method": "POST", "status": 201, "name": "lamp", "response": {"id": 1, "name": "lamp"}}
CHANGED = {"method": "PATCH", "status": 200, "item": 1, "name": "sofa", "response": {"id": 1}}
NOT_CHANGED = {"method": "PATCH", "status": 503, "item": 1, "name": "chair"}


def read(name: str) -> dict[str, Any]:
    return {"status": 200, "item": 1, "response": {"id": 1, "name": name}}


def test_an_item_that_is_not_in_the_database_is_lost() -> None:
    assert seen(CREATED).lost([]) == [1]
    assert seen(CREATED).lost([(1, "lamp")]) == []


def test_a_change_that_is_not_in_the_database_is_lost() -> None:
    assert seen(CREATED, CHANGED).lost([(1, "lamp")]) == [1]
    assert seen(CREATED, CHANGED).lost([(1, "sofa")]) == []


def test_a_change_without_an_acknowledgement_may_be_in_the_database() -> None:
    for name in ("lamp", "chair"):
        assert seen(CREATED, NOT_CHANGED).lost([(1, name)]) == []
    assert seen(CREATED, NOT_CHANGED, CHANGED).lost([(1, "chair")]) == [1]


def test_a_response_from_before_an_acknowledged_write_is_stale() -> None:
    assert seen(CREATED, CHANGED, read("lamp")).stale == [seen_last(read("lamp"), 2)]
    assert seen(CREATED, CHANGED, read("sofa")).stale == []
    assert len(seen(CREATED, {"status": 404, "item": 1}).stale) == 1


def seen_last(record: dict[str, Any], second: int) -> dict[str, Any]:
    return {"sent": second, "seconds": 0.5, "method": "GET", **record}


def test_a_count_of_fewer_items_than_were_acknowledged_is_stale() -> None:
    assert len(seen({"status": 200, "at_least": 2, "response": {"count": 1}}).stale) == 1
    assert seen({"status": 200, "at_least": 2, "response": {"count": 3}}).stale == []


def test_writes_are_counted_with_the_longest_time_between_two() -> None:
    result = seen(CREATED, NOT_CHANGED, {"status": 0, "item": 1}, CHANGED)
    assert result.acknowledged == 2
    assert result.longest_gap == 3
    assert result.statuses == {201: 1, 503: 1, 0: 1, 200: 1}
