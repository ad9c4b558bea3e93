from __future__ import annotations

import re

from src.commands.networks import NetworkRow, format_networks, measure_networks
from src.learning.networks import NETWORKS, find_network
from src.model import count_parameters


def test_every_network_in_the_box_is_measured() -> None:
    rows = measure_networks(batch_size=2, device="cpu")
    assert [row.name for row in rows] == list(NETWORKS)
    for row in rows:
        network = find_network(row.name)(n_leads=12, n_classes=5)
        assert row.n_parameters == count_parameters(network)
        assert row.trained_per_s > 0 and row.predicted_per_s > 0


def test_the_table_shows_what_is_known() -> None:
    rows = [
        NetworkRow("one", 1_410_341, 2345.6, 9876.5, 0.9241, "Someone, 2020"),
        NetworkRow("another", 5, 1.0, 2.0, None, "No one"),
    ]
    lines = format_networks(rows).splitlines()
    assert re.match(r"one +1,410,341 +2,346 +9,876 +0\.924  Someone, 2020$", lines[1])
    assert re.match(r"another +5 +1 +2 +-  No one$", lines[2])
