"""The checks: one file a question. Importing this package fills the registry; calling it, `seewhy.checks()`, lists them."""

import sys
from types import ModuleType

from seewhy.checks.completeness import completeness
from seewhy.checks.data_randomization import data_randomization
from seewhy.checks.result import CheckResult, Curve, Null, Score, Verdict
from seewhy.checks.retraining import trainings
from seewhy.checks.roar import roar, roar_forecast
from seewhy.checks.training import train_small_network
from seewhy.registry import CheckTable, list_checks


class _CallablePackage(ModuleType):
    """`seewhy.checks` is both this package and the public function that lists the checks."""

    def __call__(self) -> CheckTable:
        """Every check with what it declares about itself; prints as a table."""
        return list_checks()


sys.modules[__name__].__class__ = _CallablePackage

__all__ = [
    "CheckResult",
    "Curve",
    "Null",
    "Score",
    "Verdict",
    "completeness",
    "data_randomization",
    "roar",
    "roar_forecast",
    "train_small_network",
    "trainings",
]
