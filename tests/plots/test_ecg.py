"""ECG paper: scale in mm on the page, layouts, missing leads, gaps, and input that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from src.config import STANDARD_LEADS
from src.plots.canvas import MM_PER_INCH
from src.plots.ecg import plot_ecg

FS = 100.0


def _signal(n_leads: int = 12, seconds: float = 10.0) -> np.ndarray:
    """A 1 mV spike every second over a line at 0, twice as tall in each following lead up to the
    third.
    """
    signal = np.zeros((n_leads, round(seconds * FS)), dtype=np.float32)
    signal[:, 50::100] = np.minimum(np.arange(1, n_leads + 1), 3)[:, None] * 0.5
    return signal


def _lines(figure: Figure, gid: str) -> list[Line2D]:
    return [line for line in figure.axes[0].lines if line.get_gid() == gid]


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def _page_mm(line: Line2D) -> np.ndarray:
    """Return the points of a line in mm on the saved page."""
    return line.get_transform().transform(line.get_xydata()) / line.figure.dpi * MM_PER_INCH


def test_3x4_shows_twelve_stretches_over_a_rhythm_strip() -> None:
    figure = plot_ecg(_signal(), FS, STANDARD_LEADS, title="record 1")
    assert len(figure.axes) == 1
    names = [text for text in _texts(figure) if text in STANDARD_LEADS]
    assert sorted(names) == sorted([*STANDARD_LEADS, "II"])
    stretch, strip = _lines(figure, "trace-II")
    assert [len(stretch.get_xdata()), len(strip.get_xdata())] == [250, 1000]
    assert "record 1" in _texts(figure)
    assert "25 mm/s   10 mm/mV   100 Hz" in _texts(figure)


def test_columns_are_consecutive_and_aligned_with_the_strip() -> None:
    figure = plot_ecg(_signal(), FS, STANDARD_LEADS)
    starts = [
        _lines(figure, f"trace-{name}")[0].get_xdata()[0] for name in ("I", "aVR", "V1", "V4")
    ]
    assert np.diff(starts) == pytest.approx([62.5] * 3)
    assert _lines(figure, "trace-II")[1].get_xdata()[250] == pytest.approx(starts[1])


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 5.0)])
def test_scale_is_true_on_the_page(speed: float, gain: float) -> None:
    signal = _signal(1, 4.0)
    figure = plot_ecg(signal, FS, ["I"], speed_mm_per_s=speed, gain_mm_per_mv=gain)
    points = _page_mm(_lines(figure, "trace-I")[0])
    assert points[100, 0] - points[0, 0] == pytest.approx(speed, rel=1e-6)
    assert points[50, 1] - points[0, 1] == pytest.approx(0.5 * gain, rel=1e-6)
    (grid,) = (lines for lines in figure.axes[0].collections if lines.get_gid() == "grid-minor-x")
    first, second = (path.vertices[0] for path in grid.get_paths()[:2])
    assert np.diff(
        grid.get_transform().transform([first, second])[:, 0]
    ) / figure.dpi * MM_PER_INCH == pytest.approx(1)


def test_every_row_has_a_calibration_pulse_of_1_mv_and_200_ms() -> None:
    figure = plot_ecg(_signal(), FS, STANDARD_LEADS)
    pulses = _lines(figure, "calibration")
    assert len(pulses) == 4
    x, y = _page_mm(pulses[0]).T
    assert y.max() - y.min() == pytest.approx(10)
    assert np.ptp(x[y > y.max() - 0.1]) == pytest.approx(5)
    assert x.max() < _page_mm(_lines(figure, "trace-I")[0])[0, 0]  # ends before the trace begins


def test_6x2_and_strip_choice() -> None:
    figure = plot_ecg(_signal(), FS, STANDARD_LEADS, layout="6x2", rhythm_lead="v1")
    assert len(_lines(figure, "calibration")) == 7
    assert [len(line.get_xdata()) for line in _lines(figure, "trace-V1")] == [500, 1000]
    assert (
        len(_lines(plot_ecg(_signal(), FS, STANDARD_LEADS, rhythm_lead=None), "calibration")) == 3
    )


@pytest.mark.parametrize(
    "leads", [("MLII", "V5"), ("ECG",), (*STANDARD_LEADS, "vx"), ("II", *STANDARD_LEADS[1:])]
)
def test_other_leads_are_stacked_under_their_own_names(leads: tuple[str, ...]) -> None:
    figure = plot_ecg(_signal(len(leads)), FS, leads)
    assert len(_lines(figure, "calibration")) == len(leads)
    assert [text for text in _texts(figure) if text in leads] == list(leads)


def test_grid_follows_names_not_order() -> None:
    signal = _signal()
    figure = plot_ecg(signal[::-1], FS, [name.upper() for name in STANDARD_LEADS[::-1]])
    spike = {name: np.ptp(_lines(figure, f"trace-{name}")[0].get_ydata()) for name in ("I", "V6")}
    assert spike == pytest.approx({"I": 5, "V6": 15})


def test_missing_leads_are_marked() -> None:
    signal, present = _signal(), np.ones(12, dtype=bool)
    present[6] = False
    signal[9] = np.nan
    figure = plot_ecg(signal, FS, STANDARD_LEADS, lead_present=present)
    assert _texts(figure).count("missing") == 2
    assert not _lines(figure, "trace-V1")
    assert not _lines(figure, "trace-V4")


def test_gaps_stay_gaps_and_the_median_is_the_baseline() -> None:
    signal = _signal(1) + 7.0
    signal[0, 200:300] = np.nan
    signal[0, 310] = np.inf
    y = _lines(plot_ecg(signal, FS, ["I"]), "trace-I")[0].get_ydata()
    assert np.flatnonzero(np.isnan(y)).tolist() == [*range(200, 300), 310]
    pulse = _lines(plot_ecg(signal, FS, ["I"]), "calibration")[0].get_ydata()
    assert np.nanmedian(y) == pytest.approx(pulse[0])


def test_tall_traces_push_rows_apart_and_stay_on_the_paper() -> None:
    signal = _signal(2)
    signal[1, 150], signal[0, 150] = 4.0, -3.0
    figure = plot_ecg(signal, FS, ["I", "II"])
    upper, lower = (_lines(figure, f"trace-{name}")[0].get_ydata() for name in ("I", "II"))
    assert upper.min() > lower.max()
    assert lower.max() < figure.axes[0].get_ylim()[1]
    assert not _lines(figure, "trace-I")[0].get_clip_on()


def test_a_wild_lead_is_named_and_the_page_stays_bounded() -> None:
    signal = _signal()
    signal[7, 600] = 1000.0
    figure = plot_ecg(signal, FS, STANDARD_LEADS)
    assert any(text.endswith("off scale: V2") for text in _texts(figure))
    assert figure.get_figheight() * MM_PER_INCH < 300


def test_duration_cuts_and_says_so() -> None:
    figure = plot_ecg(_signal(1, 60.0), FS, ["I"])
    assert len(_lines(figure, "trace-I")[0].get_xdata()) == 1000
    assert any("first 10 s of 60 s" in text for text in _texts(figure))


@pytest.mark.parametrize("n_samples", [1, 3, 40])
def test_very_short_recordings_can_be_drawn(n_samples: int, tmp_path) -> None:
    figure = plot_ecg(
        np.zeros((12, n_samples)), FS, STANDARD_LEADS, lead_present=[True] * 11 + [False]
    )
    figure.savefig(tmp_path / "a.png")
    assert figure.get_figwidth() * MM_PER_INCH == pytest.approx(90)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "4x3"}, "layout is '4x3': choose one of 3x4, 6x2, stack"),
        ({"rhythm_lead": "X"}, "rhythm_lead is 'X'.*V6, or None"),
        ({"fs": 0}, "fs is 0"),
        ({"leads": ("I",)}, r"shape \(12, 1000\): expected \(1, n_samples\)"),
        ({"signal": np.zeros((12, 0))}, "n_samples"),
        ({"speed_mm_per_s": -1}, "speed_mm_per_s is -1"),
        ({"gain_mm_per_mv": np.nan}, "gain_mm_per_mv is nan"),
        ({"lead_present": [True]}, r"lead_present has shape \(1,\)"),
        ({"duration_s": 3600}, "page of 90 m"),
    ],
)
def test_refuses_what_cannot_be_drawn(change: dict, message: str) -> None:
    arguments = {"signal": _signal(), "fs": FS, "leads": STANDARD_LEADS} | change
    with pytest.raises(ValueError, match=message):
        plot_ecg(**arguments)
