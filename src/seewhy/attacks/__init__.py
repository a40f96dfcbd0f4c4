"""Attacks on explanations: networks and images that are changed so that the maps move and the answers stay."""

from seewhy.attacks.exact import on_manifold, two_channels
from seewhy.attacks.inputs import forecast_input_rows, iterative_attack, targeted_manipulation
from seewhy.attacks.result import Attacked
from seewhy.attacks.tuning import forecast_rows
from seewhy.attacks.weights import active_fooling, center_mass_fooling, location_fooling, top_k_fooling
from seewhy.softening import beta_smoothed, softened

__all__ = [
    "Attacked",
    "active_fooling",
    "beta_smoothed",
    "center_mass_fooling",
    "forecast_input_rows",
    "forecast_rows",
    "iterative_attack",
    "location_fooling",
    "on_manifold",
    "softened",
    "targeted_manipulation",
    "top_k_fooling",
    "two_channels",
]
