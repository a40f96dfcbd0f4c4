"""seewhy: what a vision model is really looking at, with the evidence of how far each answer can be trusted.

Public names are resolved on first use (PEP 562): `import seewhy` loads neither torch nor numpy.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy import attacks as attacks
    from seewhy import target as target
    from seewhy.audit import Audit as Audit
    from seewhy.audit import audit as audit
    from seewhy.data.boxes import Annotations as Annotations
    from seewhy.data.boxes import read_boxes as read_boxes
    from seewhy.data.dataset import DataSet as DataSet
    from seewhy.data.dataset import read_dataset as read_dataset
    from seewhy.data.images import Photo as Photo
    from seewhy.data.images import read_photo as read_photo
    from seewhy.data.volumes import Volume as Volume
    from seewhy.data.volumes import read_volume as read_volume
    from seewhy.errors import ImageError as ImageError
    from seewhy.errors import MissingExtraError as MissingExtraError
    from seewhy.errors import RefusalError as RefusalError
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.errors import UsageError as UsageError
    from seewhy.explanation import Explanation as Explanation
    from seewhy.explanation import Status as Status
    from seewhy.explanation import explain as explain
    from seewhy.explanation import read_explanation as read_explanation
    from seewhy.faces.report import report as report
    from seewhy.loading import load as load
    from seewhy.methods.adapter import from_captum as from_captum
    from seewhy.model import VisionModel as VisionModel
    from seewhy.registry import list_checks, list_methods

    methods = list_methods
    checks = list_checks
    from seewhy.target import Target as Target
    from seewhy.trust import Comparison as Comparison
    from seewhy.trust import LocalizationReport as LocalizationReport
    from seewhy.trust import TrustCard as TrustCard
    from seewhy.trust import bind as bind
    from seewhy.trust import check as check
    from seewhy.trust import compare as compare
    from seewhy.trust import localization_report as localization_report
    from seewhy.wrapping import wrap as wrap

_HOMES = {
    "Audit": "audit",
    "Annotations": "data.boxes",
    "read_boxes": "data.boxes",
    "DataSet": "data.dataset",
    "read_dataset": "data.dataset",
    "Photo": "data.images",
    "read_photo": "data.images",
    "Volume": "data.volumes",
    "read_volume": "data.volumes",
    "ImageError": "errors",
    "MissingExtraError": "errors",
    "RefusalError": "errors",
    "SeewhyError": "errors",
    "UsageError": "errors",
    "Explanation": "explanation",
    "Status": "explanation",
    "explain": "explanation",
    "read_explanation": "explanation",
    "report": "faces.report",
    "load": "loading",
    "from_captum": "methods.adapter",
    "VisionModel": "model",
    "wrap": "wrapping",
    "Target": "target",
    "Comparison": "trust",
    "LocalizationReport": "trust",
    "TrustCard": "trust",
    "bind": "trust",
    "check": "trust",
    "compare": "trust",
    "localization_report": "trust",
}

_ROOMS = ("attacks", "audit", "checks", "methods", "target")  # submodules that are public names themselves

__all__ = [*_HOMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return str(importlib.metadata.version("seewhy"))
    if name in _ROOMS:
        return importlib.import_module(f"seewhy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"seewhy.{_HOMES[name]}"), name)
    if _HOMES[name] == "explanation":
        _draw_in_notebooks()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _draw_in_notebooks() -> None:
    from seewhy.explanation import show_in_notebooks_with

    def render(rows: Any) -> str:
        from seewhy.faces.report import fragment

        return fragment(rows)

    show_in_notebooks_with(render)
