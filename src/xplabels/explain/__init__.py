"""What a model looks at, compared with observed and simulated spectra; what spectra could show."""

from xplabels.explain.explanation import FILES, Explanation, explain, write_explanation

__all__ = ["FILES", "Explanation", "explain", "write_explanation"]
