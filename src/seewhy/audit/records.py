"""What an audit leaves in the ledger beside predictions, answers and maps: every number of its report as a row."""

import time
from typing import Any

from torch import Tensor

from seewhy import runfolder
from seewhy.audit.examined import Examined
from seewhy.audit.review import associations, mean_maps
from seewhy.audit.stream import Row
from seewhy.data.dataset import DataSet
from seewhy.identity import identity
from seewhy.ledger import Ledger

Record = dict[str, Any]


def write_records(
    ledger: Ledger, report: Record, rows: list[Row], e: Examined, maps: dict[str, Tensor], data: DataSet
) -> None:
    """Every number of the report as a row."""
    for one in report["findings"]:
        ledger.append("finding", identity(one), one)
        for effect in one["effect"]:
            ledger.append(
                "effect",
                identity([one["id"], effect]),
                {"candidate": one["id"], "operation": "all", "image": "", **effect},
            )
    for one in associations(rows, data):
        ledger.append("association", identity(one), one)
    for one in mean_maps(maps, [e.strata[i] for i in e.explained], ledger):
        ledger.append("mean_map", identity(one), one)


def write_verdict(ledger: Ledger, report: Record) -> None:
    """What it all came to; every run that ends writes one, as a policy may have changed since."""
    said = ("verdict", "reasons", "policy", "detectable_effect", "not_tested", "objects")
    content = {
        **{name: report[name] for name in said if name in report},
        "findings": [identity(one) for one in report["findings"]],
    }
    ledger.append("verdict", identity([content, time.time()]), runfolder.plain(content))


def write_cost(ledger: Ledger, forward: int, gradient: int, seconds: float) -> None:
    """The rows that a run computed, and how long it took."""
    cost = {"forward_rows": forward, "gradient_rows": gradient, "seconds": round(seconds, 1)}
    ledger.append("cost", identity([cost, time.time()]), cost)
