"""Attacks on explanations: networks and images that are changed so that the maps move and the answers stay."""

from seewhy.attacks.result import Attacked
from seewhy.attacks.weights import location_fooling

__all__ = ["Attacked", "location_fooling"]
