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
