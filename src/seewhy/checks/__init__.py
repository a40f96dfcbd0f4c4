"""The checks: one file a question. Importing this package fills the registry; calling it, `seewhy.checks()`, lists them."""

import sys
from types import ModuleType

from seewhy.checks.agreement import agreement
from seewhy.checks.class_discrimination import class_discrimination
from seewhy.checks.completeness import completeness
from seewhy.checks.result import CheckResult, Curve, Null, Score, Verdict
from seewhy.checks.shape_bias import shape_bias, shape_bias_from_decisions
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
    "shape_bias",
    "shape_bias_from_decisions",
]
