"""What a model uses of spectra, compared with observed and simulated ones and what they contain."""

from xplabels.explain.explanation import FILES, Explanation, explain, write_explanation

__all__ = ["FILES", "Explanation", "explain", "write_explanation"]
