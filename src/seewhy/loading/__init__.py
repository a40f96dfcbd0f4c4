"""sw.load: a network by its specification, one file per kind of specification. The network is never used."""

from seewhy.loading.checkpoint import read_checkpoint
from seewhy.loading.labels import imagenet_labels, read_labels
from seewhy.loading.lite0 import lite_names
from seewhy.loading.specification import load

__all__ = ["imagenet_labels", "lite_names", "load", "read_checkpoint", "read_labels"]
