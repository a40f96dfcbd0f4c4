"""Optional packages, imported when a specification asks for them."""

import importlib
from types import ModuleType

from seewhy.errors import MissingExtraError


def import_extra(package: str, extra: str, purpose: str) -> ModuleType:
    """The package; MissingExtraError with the install line where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or package.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtraError(package.split(".")[0].replace("_", "-"), extra, purpose) from error
