"""Figures: every `plot_*` function takes plain values and returns a matplotlib Figure.

`canvas` has sizes, colours and saving. `ecg`, `gallery`, `saliency`, `tensors` and `timeline` draw
recordings;
`confusion_matrix`, `curves`, `f1_scores`, `reliability` and `history` draw models; `ages`,
`balance` and `quality` draw collections. `saved` has the figures that commands leave on disk, and
`report` writes a run as one HTML page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.utils import lazy_exports

if TYPE_CHECKING:
    from src.plots.ages import plot_ages as plot_ages
    from src.plots.balance import plot_class_balance as plot_class_balance
    from src.plots.balance import plot_source_balance as plot_source_balance
    from src.plots.canvas import save_figure as save_figure
    from src.plots.confusion_matrix import plot_confusion_matrix as plot_confusion_matrix
    from src.plots.curves import plot_precision_recall_curves as plot_precision_recall_curves
    from src.plots.curves import plot_roc_curves as plot_roc_curves
    from src.plots.ecg import plot_ecg as plot_ecg
    from src.plots.f1_scores import plot_f1_scores as plot_f1_scores
    from src.plots.gallery import GalleryRecord as GalleryRecord
    from src.plots.gallery import plot_gallery as plot_gallery
    from src.plots.history import plot_training_history as plot_training_history
    from src.plots.quality import plot_collection_quality as plot_collection_quality
    from src.plots.quality import plot_quality_summary as plot_quality_summary
    from src.plots.reliability import plot_reliability_diagram as plot_reliability_diagram
    from src.plots.saliency import plot_saliency as plot_saliency
    from src.plots.stress import plot_stress as plot_stress
    from src.plots.tensors import plot_batch as plot_batch
    from src.plots.tensors import plot_tensor as plot_tensor
    from src.plots.timeline import TimelineStrip as TimelineStrip
    from src.plots.timeline import plot_timeline as plot_timeline

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ages": ("plot_ages",),
        "balance": ("plot_class_balance", "plot_source_balance"),
        "canvas": ("save_figure",),
        "confusion_matrix": ("plot_confusion_matrix",),
        "curves": ("plot_precision_recall_curves", "plot_roc_curves"),
        "ecg": ("plot_ecg",),
        "f1_scores": ("plot_f1_scores",),
        "gallery": ("GalleryRecord", "plot_gallery"),
        "history": ("plot_training_history",),
        "quality": ("plot_collection_quality", "plot_quality_summary"),
        "reliability": ("plot_reliability_diagram",),
        "saliency": ("plot_saliency",),
        "stress": ("plot_stress",),
        "tensors": ("plot_batch", "plot_tensor"),
        "timeline": ("TimelineStrip", "plot_timeline"),
    },
)
