"""Networks: those in the box, a file each, and those of others by their import path.

A network is made by a factory, called as ``factory(n_leads=..., n_classes=..., **args)``. It is a
`torch.nn.Module` that maps signals (B, n_leads, n_samples) to logits (B, n_classes). It may have

- ``min_samples``: its shortest input. A network that says so takes any length from there up;
  otherwise it sees only the length that it is trained on.
- ``input_fs``: the sampling rate in Hz that its input must have; a folder of another rate is
  refused.
- ``features(x)``: the features (B, n_features) before its classifier.
- ``early_features(x)``: parts (B, n) of what it computes before it is sure, by which recordings
  unlike those of the training are told; without it, ``features`` are.
- ``stages``: a module that returns features over time (B, n_channels, L), which Grad-CAM weighs.
- ``takes_lead_presence = True``: it is then called as ``network(x, lead_present)``, with a bool
  (B, n_leads) that is False for leads that are zero throughout; so are its ``features``.
- ``takes_rr = True``: it is then trained on windows around beats alone (``preprocess --beats``),
  and called as ``network(x, rr=rr)`` with the RR intervals in seconds (B, 11): the five before the
  beat and the five after it in order of time, then the median of the record; 0 where there is no
  beat. Without them, as where it is tried on noise, it is called as ``network(x)``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn

from src import __version__
from src.learning.checkpoints import NetworkSource
from src.utils import import_object, import_path, printable


class NetworkEntry(NamedTuple):
    """A network in the box.

    Attributes
    ----------
    path
        Import path of its factory.
    paper
        Where it was published.
    auroc
        Its macro AUROC over all 71 statements on fold 9 of PTB-XL, as measured here or worked out
        of published predictions; None where neither is known.
    """

    path: str
    paper: str
    auroc: float | None = None


_HERE = "src.learning.networks"

NETWORKS = {
    "resnet1d": NetworkEntry(f"{_HERE}.resnet1d:ResNet1d", "this project", 0.940),
    "xresnet1d101": NetworkEntry(
        f"{_HERE}.xresnet1d101:XResNet1d101", "Strodthoff et al., 2021", 0.928
    ),
    "inception1d": NetworkEntry(f"{_HERE}.inception1d:Inception1d", "Ismail Fawaz et al., 2020"),
    "s4": NetworkEntry(f"{_HERE}.s4:S4", "Mehari and Strodthoff, 2022"),
    "beatnet": NetworkEntry(f"{_HERE}.beatnet:BeatNet", "this project, for windows around beats"),
}
"""Name of a network in the box -> where it is and what is known of it."""

NetworkFactory = Callable[..., nn.Module]
"""Makes a network, called as ``factory(n_leads=..., n_classes=..., **args)``."""


def find_network(name: str | NetworkFactory) -> NetworkFactory:
    """Return the factory of a network in the box, or import it as ``package.module:factory``.

    Raises
    ------
    ValueError
        If no network has the name, or the path cannot be imported.
    """
    if not isinstance(name, str):
        return name
    path = NETWORKS[name].path if name in NETWORKS else name
    if ":" not in path:
        raise ValueError(
            f"network is {printable(name)!r}: expected one of {', '.join(NETWORKS)}, or "
            "package.module:factory of your own"
        )
    return cast("NetworkFactory", import_object(path))


def name_network(network: str | NetworkFactory) -> str:
    """Return the name that a checkpoint stores: that in the box, else the import path."""
    if isinstance(network, str):
        return network
    path = import_path(network)
    return next((name for name, entry in NETWORKS.items() if entry.path == path), path)


def split_partial(
    network: str | NetworkFactory, arguments: dict[str, Any]
) -> tuple[str | NetworkFactory, dict[str, Any]]:
    """Return the factory that a `functools.partial` calls, and the arguments with those it adds.

    A checkpoint then names a factory that can be imported. A partial whose arguments a checkpoint
    cannot hold, and any other factory, is returned as it is.
    """
    if not isinstance(network, functools.partial) or network.args:
        return network, arguments
    joined = {**network.keywords, **arguments}
    try:
        is_held = json.loads(json.dumps(joined)) == joined
    except (TypeError, ValueError):
        is_held = False
    return (network.func, joined) if is_held else (network, arguments)


def describe_source(network: str | NetworkFactory) -> NetworkSource:
    """Return the hash of the file that holds a network's factory, and the version of its package.

    What cannot be found out, as for a factory typed into a notebook, is empty.
    """
    factory = find_network(network)
    while isinstance(factory, functools.partial):
        factory = factory.func
    module = inspect.getmodule(factory)
    try:
        source = Path(inspect.getsourcefile(factory) or "").read_bytes()
    except (OSError, TypeError):
        source = b""
    package = (module.__name__ if module else "").partition(".")[0]
    return NetworkSource(
        hashlib.sha256(source).hexdigest() if source else "", _describe_package(package)
    )


# The files of all installed packages are searched, which takes a second.
@functools.cache
def _describe_package(package: str) -> str:
    """Return the name and version of what a package was installed from; empty if unknown."""
    if package == __name__.partition(".")[0]:
        return f"ecg-tensor-pipeline {__version__}"
    distributions = metadata.packages_distributions().get(package, [])
    return f"{distributions[0]} {metadata.version(distributions[0])}" if distributions else ""
