from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from src.config import STANDARD_LEADS
from src.plots.canvas import PALETTE
from src.plots.saliency import plot_saliency

RNG = np.random.default_rng(3)
SIGNAL = RNG.normal(0, 0.3, (12, 1000))


def bands(figure: Figure) -> dict[str, AxesImage]:
    [axes] = figure.axes
    images = [image for image in axes.images if image.get_gid() != "shade-key"]
    return {str(image.get_gid()).removeprefix("shade-"): image for image in images}


def test_the_paper_is_coloured_where_the_map_is_strong() -> None:
    values = np.zeros((12, 1000))
    values[1, 300:400], values[7, 600:700] = 5.0, -2.5
    figure = plot_saliency(SIGNAL, values, 100, STANDARD_LEADS, smooth_s=0)
    found = bands(figure)
    assert list(found) == list(STANDARD_LEADS)
    alphas = {lead: np.asarray(image.get_array())[0, :, 3] for lead, image in found.items()}
    assert not alphas["I"].any() and set(np.flatnonzero(alphas["II"])) == set(range(300, 400))
    assert alphas["II"].max() == pytest.approx(2 * alphas["V2"].max())
    np.testing.assert_allclose(np.asarray(found["II"].get_array())[0, 300, :3], to_rgb(PALETTE[1]))
    np.testing.assert_allclose(np.asarray(found["V2"].get_array())[0, 600, :3], to_rgb(PALETTE[0]))
    figure.draw_without_rendering()


@pytest.mark.parametrize("layout", ["3x4", "stack"])
def test_bands_lie_under_their_traces(layout: str) -> None:
    figure = plot_saliency(SIGNAL, np.abs(SIGNAL), 100, STANDARD_LEADS, layout=layout)
    [axes] = figure.axes
    lines = {line.get_gid(): line for line in axes.lines}
    for image in bands(figure).values():
        line = lines[str(image.get_gid()).replace("shade", "trace")]
        if image.get_gid() == "shade-II" and layout == "3x4":
            continue  # drawn twice, the second time as the rhythm strip
        left, right, low, high = image.get_extent()
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert left == pytest.approx(x[0]) and right == pytest.approx(x[-1] + 0.25)
        assert low < y.min() and y.max() < high
        assert np.asarray(image.get_array()).shape[1] == len(x)


def test_smoothing_is_a_moving_average() -> None:
    values = np.zeros((1, 9))
    values[0, 4] = 1.0
    figure = plot_saliency(np.ones((1, 9)) * np.arange(9), values, 100, ["II"], smooth_s=0.03)
    alphas = np.asarray(bands(figure)["II"].get_array())[0, :, 3]
    assert np.flatnonzero(alphas).tolist() == [3, 4, 5] and np.ptp(alphas[3:6]) == 0


def test_absent_leads_and_empty_maps_are_drawn() -> None:
    signal = SIGNAL.copy()
    signal[3], signal[:, 700:] = np.nan, np.nan
    found = bands(plot_saliency(signal, np.zeros((12, 1000)), 100, STANDARD_LEADS))
    assert "aVR" not in found and len(found) == 11


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the map has shape \(12, 999\), the signal \(12, 1000\)"):
        plot_saliency(SIGNAL, SIGNAL[:, 1:], 100, STANDARD_LEADS)
    with pytest.raises(ValueError, match="not finite"):
        plot_saliency(SIGNAL, SIGNAL * np.nan, 100, STANDARD_LEADS)
