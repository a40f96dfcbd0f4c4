"""The checks run on a method: the trust card, and the comparison of methods."""

from seewhy.trust.binding import Bound, bind
from seewhy.trust.card import DEFAULT, FURTHER, TrustCard, check, title
from seewhy.trust.comparison import Comparison, compare
from seewhy.trust.forecast import forecast_checks
from seewhy.trust.localization import LocalizationReport, localization_report, read_findings
from seewhy.trust.setup import label_indices

__all__ = [
    "DEFAULT",
    "FURTHER",
    "Bound",
    "Comparison",
    "LocalizationReport",
    "TrustCard",
    "bind",
    "check",
    "compare",
    "forecast_checks",
    "label_indices",
    "localization_report",
    "read_findings",
    "title",
]
