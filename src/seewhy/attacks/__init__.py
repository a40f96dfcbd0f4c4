"""Attacks on explanations: networks and images that are changed so that the maps move and the answers stay."""

from seewhy.attacks.exact import on_manifold, two_channels
from seewhy.attacks.result import Attacked
from seewhy.attacks.tuning import forecast_rows
from seewhy.attacks.weights import active_fooling, center_mass_fooling, location_fooling, top_k_fooling

__all__ = [
    "Attacked",
    "active_fooling",
    "center_mass_fooling",
    "forecast_rows",
    "location_fooling",
    "on_manifold",
    "top_k_fooling",
    "two_channels",
]
