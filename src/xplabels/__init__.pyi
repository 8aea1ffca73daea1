# The public names, stated once: type checkers read them here, and so does lazy_loader.
from .api import predict_files as predict_files
from .api.validation import validate as validate
from .core.errors import InputError as InputError
from .core.errors import XplabelsError as XplabelsError
from .core.flags import Flag as Flag
from .core.labels import LABELS as LABELS
from .core.labels import Labels as Labels
from .core.prediction import Prediction as Prediction
from .core.split import split as split
from .core.stars import Photometry as Photometry
from .core.stars import Stars as Stars
from .giants import semi_synthetic_giants as semi_synthetic_giants
from .instrument.sed import Sed as Sed
from .instrument.sed import read_sed as read_sed
from .instrument.simulation import simulate_spectra as simulate_spectra
from .io import read as read
from .io import read_blocks as read_blocks
from .io import write_stars as write_stars
from .io.catalogue import write_catalogue as write_catalogue
from .io.tables import join_labels as join_labels
from .io.tables import join_photometry as join_photometry
from .model import Model as Model
from .model import load_model as load_model
from .model import shipped as shipped
from .model.refitting import fit_unshrinking as fit_unshrinking
from .recipes import Recipe as Recipe
from .recipes import load_recipe as load_recipe
from .report import write_report as write_report
from .surveys.library import read_library as read_library
from .synthetic import example_stars as example_stars
from .synthetic import simulate_stars as simulate_stars
from .training import train as train
from .validation import score_prediction as score_prediction
from .validation.surveys import open_survey as open_survey

__version__: str
