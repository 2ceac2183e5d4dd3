"""Reproducible cross-domain few-shot segmentation: HSNet with a lightweight frequency masker."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers alone
    from cdfss.configuration.project import snakefile as snakefile
    from cdfss.errors import CdfssError as CdfssError
    from cdfss.methods.frequency import AmplitudePhaseMasker as AmplitudePhaseMasker
    from cdfss.methods.frequency import MaskModule as MaskModule
    from cdfss.methods.frequency import PhaseAttention as PhaseAttention
    from cdfss.methods.hsnet.adaptation import adapt as adapt
    from cdfss.methods.hsnet.model import HSNet as HSNet
    from cdfss.segmentation.segmenter import Segmenter as Segmenter
    from cdfss.segmentation.segmenter import fit as fit
    from cdfss.segmentation.segmenter import load as load

# Loaded on first use: making tables and plans must not wait for torch.
_PUBLIC = {
    "AmplitudePhaseMasker": "methods.frequency",
    "MaskModule": "methods.frequency",
    "PhaseAttention": "methods.frequency",
    "HSNet": "methods.hsnet.model",
    "adapt": "methods.hsnet.adaptation",
    "fit": "segmentation.segmenter",
    "load": "segmentation.segmenter",
    "Segmenter": "segmentation.segmenter",
    "CdfssError": "errors",
    "snakefile": "configuration.project",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"cdfss.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'cdfss' has no attribute {name!r}")
