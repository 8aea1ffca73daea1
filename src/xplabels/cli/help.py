"""Units and columns, as ``--help`` explains them."""

from __future__ import annotations

from xplabels.core.flags import GOOD, describe

STARS_HELP = """\
STARS is a star table of this package (.parquet, as written by xplabels library) or a Gaia XP
continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv, .csv.gz)."""

PHOTOMETRY_HELP = """\
photometry columns (tables keyed by source_id, any format astropy or pyarrow reads; absent or
null = missing):
  phot_g_mean_mag, phot_bp_mean_mag, phot_rp_mean_mag    mag (Vega); errors from
                                                         phot_*_mean_flux_over_error
  j_m, j_msigcom, h_m, h_msigcom, ks_m, ks_msigcom       mag (Vega), 2MASS
  w1mpro, w1sigmpro, w2mpro, w2sigmpro                   mag (Vega), WISE
  parallax, parallax_error                               mas
  ruwe, phot_bp_rp_excess_factor, bp_rp, phot_bp_n_obs, phot_bp_n_blended_transits,
  phot_bp_n_contaminated_transits (and phot_rp_...)      Gaia's quality: sets flags only"""

LABELS_HELP = """\
label columns: each with its error as NAME_err; empty or NaN = unknown:
  teff      K     effective temperature
  logg      dex   surface gravity, log10 of cm s-2
  fe_h      dex   [Fe/H]
  c_fe      dex   [C/Fe]
  n_fe      dex   [N/Fe]
  alpha_m   dex   [alpha/M]
Any other numerical column with an error can be a label, too. Its unit and description are read
from the column, or from a TOML file of the table's name (labels.toml for labels.csv):
  [labels.mass]
  unit = "Msun"
  description = "Stellar mass"
  range = [0.01, 200.0]   # optional; values outside are errors
  logarithmic = true      # optional; the logarithm is learned (positive labels only)"""

CATALOGUE_HELP = f"""\
columns of CATALOGUE, one row per star:
  source_id           Gaia source identifier
  then for each label of the model (teff in K, the others in dex), here teff:
  teff                the label; NaN where there is no prediction
  teff_error          half-width of the central 68.3 % interval
  teff_error_model    model part: the network's own uncertainty
  teff_error_input    input part: noise of spectrum, photometry and parallax
  teff_error_excess   intrinsic scatter, which neither explains (parts add in quadrature)
  teff_error_95       half-width of the central 95.4 % interval
  then:
  domain_distance     how unlike the training set the inputs are
  fit_chisq           chi-squared of the spectrum against the one that the labels predict
  fit_p_value         share of ordinary single stars of similar noise with at least as poor a fit
  good                whether the star {GOOD}
  flags               bit mask, the sum of:
{describe()}"""

METRICS_HELP = """\
metrics.json: {"n": N, "labels": {"teff": {...}, ...}} with, in the label's unit,
  bias (median of predicted - known), rmse, robust (1.4826 MAD), crps, and without unit
  slope, std_z, robust_std_z (z = residual / stated error, the known label's error included),
  coverage_68, coverage_95 (fractions inside the stated 68.3 and 95.4 % intervals)"""
