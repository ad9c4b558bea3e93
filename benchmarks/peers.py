"""Networks of others that training speed is compared with."""

from __future__ import annotations

from src.learning.networks.xresnet1d101 import XResNet1d101

__all__ = ["XResNet1d101"]
