"""The checks: one file a question. Importing this package fills the registry; calling it, `seewhy.checks()`, lists them."""

import sys
from types import ModuleType

from seewhy.checks.agreement import agreement
from seewhy.checks.class_discrimination import class_discrimination
from seewhy.checks.completeness import completeness
from seewhy.checks.cost import cost
from seewhy.checks.data_randomization import data_randomization
from seewhy.checks.faithfulness import faithfulness
from seewhy.checks.grid_pointing import grid_pointing
from seewhy.checks.localization import localization
from seewhy.checks.manipulation import manipulation
from seewhy.checks.model_randomization import model_randomization
from seewhy.checks.resolution import resolution
from seewhy.checks.result import CheckResult, Curve, Null, Score, Verdict, read_result
from seewhy.checks.retraining import trainings
from seewhy.checks.roar import roar, roar_forecast
from seewhy.checks.shape_bias import shape_bias, shape_bias_from_decisions
from seewhy.checks.stability import stability
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
    "agreement",
    "class_discrimination",
    "completeness",
    "cost",
    "data_randomization",
    "faithfulness",
    "grid_pointing",
    "localization",
    "manipulation",
    "model_randomization",
    "read_result",
    "resolution",
    "roar",
    "roar_forecast",
    "shape_bias",
    "shape_bias_from_decisions",
    "stability",
    "train_small_network",
    "trainings",
]
