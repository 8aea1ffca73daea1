"""Compiled prediction: what :mod:`xplabels.propagation` does, some times faster on a processor.

:class:`~xplabels.kernels.prediction.Kernels` is the whole of it; it needs the extra ``fast``.
"""
