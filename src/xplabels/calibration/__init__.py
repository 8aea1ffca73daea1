"""What makes a model's statements hold: fitted on stars it was not trained on.

Nothing is loaded here: :mod:`~xplabels.calibration.joint` needs no torch.
"""
