"""The methods. Importing this package fills the registry; calling it, `seewhy.methods()`, lists them."""

import sys
from types import ModuleType

from seewhy.maps import Maps
from seewhy.methods import (
    attention,
    cam,
    cam_forward,
    cam_several,
    control,
    extremal,
    gradient,
    path,
    perturbation,
    rectified,
    superpixels,
    walks,
)
from seewhy.registry import MethodTable, list_methods


class _CallablePackage(ModuleType):
    """`seewhy.methods` is both this package and the public function that lists the methods."""

    def __call__(self) -> MethodTable:
        """Every method with what it declares about itself; prints as a table."""
        return list_methods()


sys.modules[__name__].__class__ = _CallablePackage

__all__ = [
    "Maps",
    "attention",
    "cam",
    "cam_forward",
    "cam_several",
    "control",
    "extremal",
    "gradient",
    "path",
    "perturbation",
    "rectified",
    "superpixels",
    "walks",
]
