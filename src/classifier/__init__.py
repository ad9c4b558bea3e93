"""A trained network in use.

``from src.classifier import Classifier`` gives the network as one object. The modules:
`classifier` holds that object, `inputs` turns recordings into inputs, `fitness` tells which are
unfit, `file_predictions` predicts for many files, `timeline` for the windows of one, `notes` says
how each was used, `saliency` explains predictions, and `onnx_export` exports the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.utils import lazy_exports

if TYPE_CHECKING:
    from src.classifier.classifier import (
        Classifier as Classifier,
    )
    from src.classifier.classifier import (
        Prediction as Prediction,
    )
    from src.classifier.file_predictions import (
        predict_files as predict_files,
    )
    from src.classifier.onnx_export import (
        export_onnx as export_onnx,
    )
    from src.classifier.timeline import (
        Timeline as Timeline,
    )

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "classifier": ("Classifier", "Prediction"),
        "file_predictions": ("predict_files",),
        "onnx_export": ("export_onnx",),
        "timeline": ("Timeline",),
    },
)
