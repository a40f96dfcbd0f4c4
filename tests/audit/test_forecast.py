"""What an audit will cost is said before, and it never costs more."""

import torch
from planted_scenes import SIDE, dataset, reader
from torch import nn

import nets
import seewhy as sw
from seewhy.audit import forecast_audit
from seewhy.audit.forecast import rows_of_pattern
from seewhy.data.dataset import read_dataset
from seewhy.ledger import open_ledger


class Trained(nn.Module):
    """A small network with a layer for Grad-CAM that reads the corner's red, by construction."""

    def __init__(self):
        super().__init__()
        self.cnn = nets.tiny_cnn()
        self.reader = reader().module

    def forward(self, x):
        return 0.01 * self.cnn(x)[:, :2] + self.reader(x)


def network():
    torch.manual_seed(0)
    return sw.wrap(
        Trained().eval(), mean=(0, 0, 0), std=(1, 1, 1), labels=["round", "square"], size=SIDE, batch_size=64
    )


def test_an_audit_never_costs_more_than_was_forecast(tmp_path):
    items = dataset(40)
    model = network()
    most = forecast_audit(model, read_dataset(items))
    run = sw.audit(network(), items, tmp_path, pictures=False, anyway=True)
    with open_ledger(tmp_path, read_only=True) as ledger:
        [spent] = (record.content for record in ledger.read("cost"))
    tried = len(run.findings) + sum(len(one["details"].get("also", [])) for one in run.findings)
    assert tried <= 12
    told = forecast_audit(model, read_dataset(items), patterns=tried)
    print(f"spent {spent}; forecast {most}, of {tried} patterns {told}")  # noqa: T201
    assert spent["forward_rows"] <= told[0] <= most[0]
    assert spent["gradient_rows"] <= told[1] == most[1]
    assert told[0] < 2 * spent["forward_rows"]


def test_further_patterns_cost_what_is_said_of_one():
    data, model = read_dataset(dataset(20)), network()
    few, more = (forecast_audit(model, data, ("occlusion",), checks=(), patterns=n) for n in (3, 5))
    assert more[0] - few[0] == 2 * rows_of_pattern(20)
