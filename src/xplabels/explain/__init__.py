"""What a model looks at, beside observed and simulated spectra, and what spectra could tell."""

from xplabels.explain.explanation import (
    FILES,
    Explanation,
    explain,
    write_explanation,
    write_star_pages,
)

__all__ = ["FILES", "Explanation", "explain", "write_explanation", "write_star_pages"]
