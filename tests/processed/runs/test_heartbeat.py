"""Signs of life: lines from a thread while a step lasts, and of each new step."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from src.processed.runs.heartbeat import EVERY_S, Heartbeat, count_aloud


def test_a_long_step_is_told_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "src"), Heartbeat("report", "a", every_s=0.05) as beat:
        beat.start_step("b", total=3)
        beat.count(2)
        time.sleep(0.4)
    first, *others = [record.getMessage() for record in caplog.records]
    assert first.startswith("report: b, 0 of 3 (") and len(others) >= 3
    assert others[-1].startswith("report: b, 2 of 3 (")
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    assert EVERY_S < 3


def test_lines_appear_while_logging_is_disabled(caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.WARNING)
    try:
        with caplog.at_level(logging.INFO, "src"):
            logging.disable(logging.WARNING)  # at_level enables it again
            with Heartbeat("export", "writing", every_s=0.02):
                time.sleep(0.2)
    finally:
        logging.disable(logging.NOTSET)
    assert "export: writing" in caplog.text


def test_quiet_commands_stay_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "src"):
        assert list(count_aloud([1, 2], "predict", "records")) == [1, 2]
        with Heartbeat("export", "writing", every_s=0.02) as beat:
            beat.start_step("b")
            time.sleep(0.1)
    assert caplog.text == ""


def test_an_error_ends_the_thread() -> None:
    with pytest.raises(ValueError, match="broken"), Heartbeat("export", "writing"):
        raise ValueError("broken")
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
