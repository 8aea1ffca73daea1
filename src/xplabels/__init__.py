"""Stellar labels, with calibrated errors, from Gaia XP spectra.

Everything a script needs is here, stated once in ``__init__.pyi``; each name is loaded when it is
first used, so that ``import xplabels`` costs nothing:

>>> import xplabels as xp
>>> stars = xp.example_stars(3)         # or xp.read("XP_CONTINUOUS_RAW.csv")
>>> labels = xp.load_model().predict(stars, covariance=True)
>>> labels
Prediction(N = 3: teff, logg, fe_h, c_fe, n_fe, alpha_m by apogee-dr17-library; 0 good)
>>> labels["teff"].value.shape, labels.covariance(["teff", "logg"]).shape
((3,), (3, 2, 2))
>>> len(labels[labels["teff"].value > 0])
3
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
