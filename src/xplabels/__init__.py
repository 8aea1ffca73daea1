"""Stellar labels, with honest errors, from Gaia BP/RP spectra."""

__version__ = "0.1.0"
