"""Before anything is searched: whether the network follows the labels at all, from some of the images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.audit.stream import Row, list_skipped, read_again
from seewhy.data.dataset import DataSet
from seewhy.errors import RefusalError
from seewhy.ledger import Ledger
from seewhy.model import VisionModel
from seewhy.trust.setup import examine_setup

SETUP_IMAGES = 200


def check_setup(
    model: VisionModel,
    data: DataSet,
    truth: Tensor,
    rows: Sequence[Row],
    data_id: str,
    ledger: Ledger,
    seed: int,
    *,
    anyway: bool,
) -> None:
    """What the network says of the labels, on some of the images; RefusalError where they look wrong."""
    key = f"{model.fingerprint()} {data_id}"
    if model.task not in ("multiclass", "binary"):
        return
    known = ledger.find("setup", key)
    setup = _setup(model, data, truth, rows, ledger, seed) if known is None else known.content
    if setup["warning"] and not anyway:
        raise RefusalError(f"{setup['warning']} Nothing was audited; anyway=True (--anyway) goes on.")
    if known is None:
        ledger.append("setup", key, setup)


def _setup(
    model: VisionModel, data: DataSet, truth: Tensor, rows: Sequence[Row], ledger: Ledger, seed: int
) -> dict[str, Any]:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:SETUP_IMAGES]
    index = [rows[i].index for i in sorted(drawn)]
    skipped: list[dict[str, str]] = []
    found = [(index[place], x) for place, x, _ in read_again(model, data, index, skipped)]
    list_skipped(ledger, skipped)
    index, x = [i for i, _ in found], torch.cat([x for _, x in found])
    scenes = [data.samples[i].group or data.samples[i].name for i in index]
    return examine_setup(model, x, truth[index].tolist(), scenes if len(set(scenes)) < len(scenes) else None).to_dict()
