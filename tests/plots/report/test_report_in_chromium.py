"""The report in Chromium: complaints, layout, tables, the record browser, print and dark pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, Page, start_chromium


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with start_chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.mark.parametrize("which", ["page", "hostile"])
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_it_opens_without_a_complaint_and_fits(
    chromium: Page, request: pytest.FixtureRequest, which: str, width: int, mobile: bool
) -> None:
    chromium.open(request.getfixturevalue(which), width, 844, mobile=mobile)
    assert chromium.problems == []
    assert all(url.startswith(("file:", "data:")) for url in chromium.requests)
    assert chromium.run(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert chromium.run("window.hacked === undefined")
    assert chromium.run("!document.getElementById('ecg-browser').hidden")


def test_tables_sort(chromium: Page, page: Path) -> None:
    chromium.open(page)
    table = "[...document.querySelectorAll('#training table')].at(-1)"
    cells = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[0].dataset.order))"
    click = f"{table}.tHead.rows[0].cells[0].querySelector('button').click()"
    assert chromium.run(cells) == [1, 2]
    chromium.run(click)
    assert (
        chromium.run(cells) == [2, 1]
        and chromium.run(f"{table}.tHead.rows[0].cells[0].ariaSort") == "descending"
    )
    chromium.run(click)
    assert chromium.run(cells) == [1, 2]


def test_what_is_missing_sorts_last(chromium: Page, page: Path) -> None:
    chromium.open(page)
    code = """(() => {
        const table = document.querySelector('#results table');
        const header = table.tHead.rows[0].cells[2];
        delete table.tBodies[0].rows[1].cells[2].dataset.order;
        const name = table.tBodies[0].rows[1].cells[0].textContent;
        const last = () => [...table.tBodies[0].rows].at(-1).cells[0].textContent;
        const found = [];
        for (let i = 0; i < 2; i += 1) {
            header.querySelector('button').click();
            found.push(last() === name);
        }
        return found;
    })()"""
    assert chromium.run(code) == [True, True]


def state(chromium: Page) -> tuple[float, float]:
    start, span = chromium.run(
        "(({start, span}) => [start, span])(document.getElementById('ecg-browser').dataset)"
    )
    return float(start), float(span)


def test_the_browser_zooms_and_moves(chromium: Page, page: Path) -> None:
    chromium.open(page)
    assert state(chromium) == (0, 10)
    chromium.run("document.querySelector('[data-tool=closer]').click()")
    start, span = state(chromium)
    assert span == pytest.approx(10 / 1.5, abs=0.01) and start == pytest.approx(
        (10 - span) / 2, abs=0.01
    )
    chromium.run("document.querySelector('#ecg-browser svg').focus()")
    for key in ("Home", "ArrowRight"):
        chromium.send("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert state(chromium)[0] == pytest.approx(span / 5, abs=0.01)
    chromium.run("document.querySelector('[data-tool=whole]').click()")
    assert state(chromium) == (0, 10)


def test_wheel_and_pointer(chromium: Page, page: Path) -> None:
    chromium.open(page)
    chromium.run(
        "document.querySelector('#ecg-browser svg').scrollIntoView({behavior: 'instant', "
        "block: 'center'})"
    )
    left, top, width = chromium.run(
        "(box => [box.left, box.top, box.width])(document.querySelector('#ecg-browser "
        "svg').getBoundingClientRect())"
    )
    at = {"x": left + width / 2, "y": top + 100}
    chromium.send(
        "Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-100, modifiers=2, **at
    )
    span = state(chromium)[1]
    assert span < 7
    before = state(chromium)[0]
    for kind, x in (
        ("mousePressed", at["x"]),
        ("mouseMoved", at["x"] - width / 10),
        ("mouseReleased", at["x"] - width / 10),
    ):
        chromium.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=at["y"],
            button="left",
            buttons=1,
            clickCount=1,
        )
    assert state(chromium)[0] == pytest.approx(before + span / 10, abs=0.02)
    chromium.send("Input.dispatchMouseEvent", type="mouseMoved", x=at["x"], y=at["y"])
    assert re.fullmatch(
        r"\w+ at [\d.]+ s: -?[\d.]+ mV",
        chromium.run("document.querySelector('.readout').textContent.trim()"),
    )
    for kind, x in (
        ("mousePressed", at["x"]),
        ("mouseMoved", at["x"] + width / 10),
        ("mouseReleased", at["x"] + width / 10),
    ):
        chromium.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=at["y"],
            button="left",
            buttons=1,
            clickCount=1,
            modifiers=8,
        )
    measured = chromium.run("document.querySelector('.readout').textContent.trim()")
    assert abs(int(measured.split(" ms")[0]) - span * 100) <= 2 and chromium.problems == []


def test_two_fingers_zoom_on_a_phone(chromium: Page, page: Path) -> None:
    chromium.open(page, 390, 844, mobile=True)
    chromium.run(
        "document.querySelector('#ecg-browser svg').scrollIntoView({behavior: 'instant', "
        "block: 'center'})"
    )
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", 0)):
        points = [{"x": 195 - apart, "y": 400, "id": 0}, {"x": 195 + apart, "y": 400, "id": 1}]
        chromium.send("Input.dispatchTouchEvent", type=kind, touchPoints=points if apart else [])
    assert state(chromium)[1] == pytest.approx(10 / 3, rel=0.1)


def test_a_mistake_opens_in_the_browser(chromium: Page, page: Path) -> None:
    chromium.open(page)
    wanted = chromium.run(
        "(b => { b.click(); return b.closest('article').querySelector('code').textContent "
        "})([...document.querySelectorAll('[data-open]')].at(-1))"
    )
    assert chromium.run("document.getElementById('ecg-browser').dataset.key") == wanted
    chromium.run(
        "(s => { s.value = 'V2'; s.dispatchEvent(new Event('change')) "
        "})(document.querySelector('[data-tool=leads]'))"
    )
    assert chromium.run("document.querySelectorAll('#ecg-browser .trace').length") == 1


def test_printing_opens_what_is_folded(chromium: Page, page: Path, tmp_path: Path) -> None:
    chromium.open(page)
    assert chromium.run("document.querySelectorAll('details:not([open])').length") > 0
    assert (
        chromium.run(
            "(dispatchEvent(new Event('beforeprint')), "
            "document.querySelectorAll('details:not([open])').length)"
        )
        == 0
    )
    assert (
        chromium.run(
            "(dispatchEvent(new Event('afterprint')), "
            "document.querySelectorAll('details[open]').length)"
        )
        == 0
    )
    assert chromium.print(tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_dark_pages_have_dark_figures(chromium: Page, page: Path) -> None:
    ink = "getComputedStyle(document.querySelector('#results figure:not(.plain) text')).fill"
    chromium.open(page)
    light = chromium.run(ink)
    chromium.open(page, dark=True)
    assert chromium.run(ink) != light


def test_figures_stand_side_by_side(chromium: Page, page: Path) -> None:
    chromium.open(page, 1280, 900)
    code = """[...document.querySelectorAll('#results .pictures')].map(block => {
        const tops = [...block.querySelectorAll('figure')].map(f => f.getBoundingClientRect().top);
        return tops.filter(top => top === tops[0]).length;
    })"""
    assert all(n in (2, 3) for n in chromium.run(code))


def test_a_table_wider_than_a_phone_says_so_and_keeps_its_first_column(
    chromium: Page, page: Path
) -> None:
    hints = "[...document.querySelectorAll('.hint')].filter(hint => !hint.hidden).length"
    chromium.open(page, 390, 844, mobile=True)
    chromium.wait_for(f"{hints} > 0")
    code = """(() => {
        const table = document.querySelector('#results table');
        const scroller = table.parentNode;
        scroller.scrollLeft = 200;
        const left = scroller.getBoundingClientRect().left;
        return [table.tHead.rows[0].cells[0], table.tBodies[0].rows[0].cells[0]].map(
            cell => cell.getBoundingClientRect().left - left);
    })()"""
    assert chromium.run(code) == pytest.approx([0, 0], abs=1)
    narrow = """[...document.querySelectorAll('tbody th')].filter(
        cell => cell.clientWidth > 0 && cell.clientWidth < 90 && cell.innerText.length > 15
    ).length"""
    assert chromium.run(narrow) == 0  # not one letter a line


def test_shaded_records_have_a_colour_key(chromium: Page, page: Path) -> None:
    chromium.open(page)
    keys = "[...document.querySelectorAll('.gallery .key')].map(key => key.innerText)"
    assert all(re.match(r"against\s+for\s+\S", key) for key in chromium.run(keys))
    assert not chromium.run("document.querySelector('[data-part=key]').hidden")
    assert chromium.run("document.querySelector('[data-part=class]').textContent")
