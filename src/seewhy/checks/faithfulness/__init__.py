"""Faithfulness: whether the network's answer changes where the map says that it should; one file a protocol."""

from seewhy.checks.faithfulness.check import faithfulness

__all__ = ["faithfulness"]
