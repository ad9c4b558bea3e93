"""The page of suspicious labels in Chromium: keys, decisions, and the table that it saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Page, start_chromium

from src.commands.label_issues import run_label_issues
from src.labels.decisions import load_decisions
from src.learning.predictions import Predictions
from src.processed.targets import encode_targets, find_classes, join_records, load_records


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with start_chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.fixture(scope="module")
def issue_page(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of predictions that contradict the labels of five records."""
    records = join_records(list(load_records(processed).values()))
    classes = find_classes(records)
    y_true = encode_targets(records, classes)
    y_score = 0.9 * y_true + 0.1 / len(classes)
    y_score[:5] = np.roll(y_score[:5], 1, axis=1)
    path = tmp_path_factory.mktemp("issues") / "page.html"
    run_label_issues(
        Predictions(records.keys, y_true, y_score, classes, out_of_fold=True), processed, page=path
    )
    return path


def press(chromium: Page, *keys: str) -> None:
    for key in keys:
        chromium.send("Input.dispatchKeyEvent", type="keyDown", key=key)
        chromium.send("Input.dispatchKeyEvent", type="keyUp", key=key)


def shown(chromium: Page, part: str) -> str:
    text: str = chromium.run(
        f"document.querySelector('#ecg-decider [data-part={part}]').textContent"
    )
    return text


def test_keys_decide_and_the_table_is_read_back(
    chromium: Page, issue_page: Path, tmp_path: Path
) -> None:
    chromium.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    chromium.open(issue_page)
    assert chromium.problems == []
    assert "1 of 5, given" in shown(chromium, "question")
    chromium.run("document.querySelector('#ecg-browser svg').focus()")
    press(chromium, "k", "c", "d")
    assert shown(chromium, "count") == "3 of 5 decided: 1 kept, 1 changed, 1 dropped"
    press(chromium, "p", "u")
    assert shown(chromium, "count") == "2 of 5 decided: 1 kept, 1 changed, 0 dropped"
    # Letters in the field are labels, and Enter decides
    chromium.run("document.querySelector('[data-part=labels]').value = 'AF; =x'")
    chromium.run("document.querySelector('[data-part=labels]').focus()")
    press(chromium, "d")
    press(chromium, "Enter")
    assert "2 changed" in shown(chromium, "count")
    key = "document.getElementById('ecg-browser').dataset.key"
    assert chromium.run(key) == chromium.run(
        "JSON.parse(document.getElementById('ecg-records').textContent)[3].key"
    )

    chromium.run("document.querySelector('[data-part=save]').click()")
    saved = tmp_path / "decisions.csv"
    chromium.wait_for("true")
    for _ in range(50):
        if saved.is_file() and saved.stat().st_size:
            break
        chromium.run("new Promise(done => setTimeout(done, 100))")
    decisions = load_decisions(saved)
    assert [decision.kind for decision in decisions] == ["keep", "change", "change"]
    assert decisions[0].labels == decisions[0].given
    assert decisions[1].labels and decisions[1].labels != decisions[1].given
    assert decisions[2].labels == ("AF", "=x") and "'=x" in saved.read_text()
    assert chromium.problems == []
    # The page opened again goes on where it was left
    chromium.open(issue_page)
    assert "3 of 5 decided" in shown(chromium, "count")


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_it_fits(chromium: Page, issue_page: Path, width: int, mobile: bool) -> None:
    chromium.open(issue_page, width, 844, mobile=mobile)
    assert chromium.run(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert all(url.startswith(("file:", "data:")) for url in chromium.requests)
