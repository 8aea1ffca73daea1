"""Compiled prediction: what torch does, some times faster on a processor.

The twin of :mod:`xplabels.network.propagation`.
:class:`~xplabels.kernels.prediction.Kernels` is the whole of it; it needs the extra ``fast``.
"""
