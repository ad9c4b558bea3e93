"""Figures: every `plot_*` function takes plain values and returns a matplotlib Figure.

`canvas` has sizes, colours and saving; `ecg` and `ecg_pages` draw recordings; `scores`, `curves`
and `history` draw models; `data` draws collections; `saved` has the figures that commands leave on
disk. `report` writes a run as one HTML page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.utils import lazy_exports

if TYPE_CHECKING:
    from src.plots.canvas import (
        save_figure as save_figure,
    )
    from src.plots.curves import (
        plot_precision_recall_curves as plot_precision_recall_curves,
    )
    from src.plots.curves import (
        plot_reliability_diagram as plot_reliability_diagram,
    )
    from src.plots.curves import (
        plot_roc_curves as plot_roc_curves,
    )
    from src.plots.data import (
        plot_ages as plot_ages,
    )
    from src.plots.data import (
        plot_class_balance as plot_class_balance,
    )
    from src.plots.data import (
        plot_collection_quality as plot_collection_quality,
    )
    from src.plots.data import (
        plot_quality_summary as plot_quality_summary,
    )
    from src.plots.data import (
        plot_source_balance as plot_source_balance,
    )
    from src.plots.ecg import (
        plot_ecg as plot_ecg,
    )
    from src.plots.ecg_pages import (
        GalleryRecord as GalleryRecord,
    )
    from src.plots.ecg_pages import (
        plot_gallery as plot_gallery,
    )
    from src.plots.ecg_pages import (
        plot_saliency as plot_saliency,
    )
    from src.plots.history import (
        plot_training_history as plot_training_history,
    )
    from src.plots.scores import (
        plot_confusion_matrix as plot_confusion_matrix,
    )
    from src.plots.scores import (
        plot_f1_scores as plot_f1_scores,
    )

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "canvas": ("save_figure",),
        "curves": ("plot_precision_recall_curves", "plot_reliability_diagram", "plot_roc_curves"),
        "data": (
            "plot_ages",
            "plot_class_balance",
            "plot_collection_quality",
            "plot_quality_summary",
            "plot_source_balance",
        ),
        "ecg": ("plot_ecg",),
        "ecg_pages": ("GalleryRecord", "plot_gallery", "plot_saliency"),
        "history": ("plot_training_history",),
        "scores": ("plot_confusion_matrix", "plot_f1_scores"),
    },
)
