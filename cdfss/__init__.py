"""Reproducible cross-domain few-shot segmentation: HSNet with a lightweight frequency masker."""

from importlib import import_module

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


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(f"cdfss.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'cdfss' has no attribute {name!r}")
