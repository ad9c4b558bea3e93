"""Write a checkpoint with some of its classes: ``python -m experiments.keep_classes FROM.pth TO.pth
CLASS [CLASS ...]``.

A run with ``--keep-auxiliary`` answers for more classes than a task has. The weights left here are,
bit for bit, those that the same run without that option leaves.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from src.learning.checkpoints import load_checkpoint, save_checkpoint
from src.model import find_output_weights, select_outputs


def keep_classes(source: str, target: str, classes: list[str]) -> None:
    """Keep the outputs of `classes`, in this order; the others and the state of the training are
    left out.
    """
    checkpoint = load_checkpoint(source)
    if absent := [name for name in classes if name not in checkpoint.card.classes]:
        raise ValueError(
            f"{source}: has no class {', '.join(absent)}; it has "
            f"{', '.join(checkpoint.card.classes)}"
        )
    rows = [checkpoint.card.classes.index(name) for name in classes]
    save_checkpoint(
        target,
        replace(checkpoint.card, classes=tuple(classes)),
        select_outputs(checkpoint.weights, rows, find_output_weights(checkpoint.card)),
        {"epoch": checkpoint.state.get("epoch")},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("classes", nargs="+")
    keep_classes(**vars(parser.parse_args()))
