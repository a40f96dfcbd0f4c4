"""The checks run on a method: the trust card, and the comparison of methods."""

from seewhy.trust.binding import Bound, bind
from seewhy.trust.card import TrustCard, check
from seewhy.trust.comparison import Comparison, compare

__all__ = ["Bound", "Comparison", "TrustCard", "bind", "check", "compare"]
