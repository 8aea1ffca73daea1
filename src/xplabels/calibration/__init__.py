"""How far what a model says holds: its errors alone and together, their shape, trend and domain.

Nothing is imported here: :mod:`~xplabels.calibration.joint` needs no torch.
"""
