"""Calibration of the stated errors, of single labels and jointly, and correction of shrinkage."""
