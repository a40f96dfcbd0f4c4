"""The checks run on a method: the trust card, and the comparison of methods."""

from seewhy.trust.binding import Bound, bind

__all__ = ["Bound", "bind"]
