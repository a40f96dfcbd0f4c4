"""What an audit will cost is said before, and it never costs more."""

import torch
from planted_scenes import SIDE, dataset, reader
from torch import nn

import nets
import seewhy as sw
from seewhy.audit import forecast_audit
from seewhy.audit.forecast import TRIALS, WINDOWS, rows_of_trial
from seewhy.audit.sightings import RECIPIENTS
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


class Meter:
    """Forward rows of every stage of an audit, and its trials, by what its progress says."""

    def __init__(self, model):
        self.model, self.rows, self.stage, self.before, self.trials = model, {}, "", 0, 0

    def __call__(self, what, _done, _all):
        now = self.model.forward_rows
        self.rows[self.stage] = self.rows.get(self.stage, 0) + now - self.before
        self.stage, self.before = what, now
        self.trials += what.startswith("confirming")


def test_an_audit_never_costs_more_than_was_forecast(tmp_path):
    items = dataset(40)
    data, model = read_dataset(items), network()
    meter = Meter(model)
    sw.audit(model, items, tmp_path, pictures=False, anyway=True, progress=meter)
    tried = meter.trials
    with open_ledger(tmp_path, read_only=True) as ledger:
        [spent] = (record.content for record in ledger.read("cost"))
    most, of_these, of_none = (forecast_audit(network(), data, trials=n) for n in (TRIALS, tried, 0))
    assert 0 < tried <= TRIALS
    assert spent["forward_rows"] <= of_these[0] <= most[0]
    assert spent["gradient_rows"] <= most[1]
    confirming = sum(rows for stage, rows in meter.rows.items() if stage.startswith("confirming"))
    assert spent["forward_rows"] - confirming <= of_none[0]  # the rest is a bound by itself
    assert of_these[0] < 2 * spent["forward_rows"]
    one, two = (forecast_audit(network(), data, ("occlusion",) * n, checks=(), trials=0)[0] for n in (1, 2))
    windows = two - one - meter.rows["Occlusion"]  # of a method, pasted onto others to see what moves
    assert 0 < meter.rows["looking for marks"] - RECIPIENTS <= 2 * windows


def test_only_so_many_images_of_a_class_are_explained():
    data, model = read_dataset(dataset(40)), network()
    many, few = (forecast_audit(model, data, ("occlusion",), checks=(), per_class=n, trials=0) for n in (10, 2))
    windows = RECIPIENTS * WINDOWS * (40 - 8)  # 2 right and 2 wrong ones of 2 classes
    assert many[0] - few[0] == 51 * (40 - 8) + windows


def test_further_trials_cost_what_is_said_of_one():
    data, model = read_dataset(dataset(20)), network()
    few, more = (forecast_audit(model, data, ("occlusion",), checks=(), trials=n) for n in (3, 5))
    assert more[0] - few[0] == 2 * rows_of_trial(20)
