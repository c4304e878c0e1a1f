import json
import logging

import pytest

from app.logs import JsonFormatter


def test_a_traceback_stays_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("app").exception("failed")
    [record] = caplog.records
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: first\nsecond" in json.loads(text)["exception"]


def test_a_message_that_a_client_made_long_is_cut_in_its_middle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise KeyError("x" * 1_000_000)
    except KeyError as error:
        logging.getLogger("app").exception("failed: %r!", error)
    [record] = caplog.records
    text = JsonFormatter().format(record)
    assert len(text) < 25_000
    line = json.loads(text)
    assert line["message"].startswith("failed: KeyError('xxx")
    assert line["message"].endswith("xxx')!")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("xxx'")
