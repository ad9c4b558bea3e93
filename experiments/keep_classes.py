"""Write a checkpoint with some of its classes: ``python -m experiments.keep_classes FROM.pth TO.pth
CLASS [CLASS ...]``, or without some of them: ``--without``.

The weights that are kept are, bit for bit, those of the source.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from src.learning.checkpoints import load_checkpoint, save_checkpoint
from src.model import find_output_weights, select_outputs


def keep_classes(source: str, target: str, classes: list[str], *, without: bool = False) -> None:
    """Keep the outputs of `classes`, in this order, or all but these; the others and the state of
    the training are left out.
    """
    checkpoint = load_checkpoint(source)
    if absent := [name for name in classes if name not in checkpoint.card.classes]:
        raise ValueError(
            f"{source}: has no class {', '.join(absent)}; it has "
            f"{', '.join(checkpoint.card.classes)}"
        )
    kept = [name for name in checkpoint.card.classes if name not in classes] if without else classes
    rows = [checkpoint.card.classes.index(name) for name in kept]
    save_checkpoint(
        target,
        replace(checkpoint.card, classes=tuple(kept)),
        select_outputs(checkpoint.weights, rows, find_output_weights(checkpoint.card)),
        {"epoch": checkpoint.state.get("epoch")},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("classes", nargs="+")
    parser.add_argument("--without", action="store_true")
    keep_classes(**vars(parser.parse_args()))
