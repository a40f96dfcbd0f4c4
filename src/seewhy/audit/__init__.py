"""The audit: what a model should not be looking at, proved, and whether it may ship."""

import sys
from types import ModuleType
from typing import Any

from seewhy.audit.forecast import forecast_audit
from seewhy.audit.run import Audit, audit


class _CallablePackage(ModuleType):
    """`seewhy.audit` is both this package and the public function."""

    __wrapped__ = staticmethod(audit)

    def __call__(self, *args: Any, **keywords: Any) -> Audit:
        return audit(*args, **keywords)


sys.modules[__name__].__class__ = _CallablePackage
__doc__ = audit.__doc__ or ""

__all__ = ["Audit", "audit", "forecast_audit"]
