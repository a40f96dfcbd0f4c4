"""Explanations and models outlive the process that made them."""

import pickle

import torch

import seewhy as sw
from nets import images, tiny_cnn


def test_an_explanation_goes_through_pickle_with_the_fingerprint_of_its_model():
    e = sw.explain(sw.wrap(tiny_cnn(), size=32), images(2), "grad_cam")
    again = pickle.loads(pickle.dumps(e))
    assert torch.equal(again.raw, e.raw)
    assert again.fingerprint() == e.fingerprint()
    assert again.rows()[0][0]["id"] == e.rows()[0][0]["id"]


def test_a_model_that_was_asked_goes_through_pickle_and_gives_the_same_map():
    model, x = sw.wrap(tiny_cnn(), size=32), images(1)
    e = sw.explain(model, x, "grad_cam")
    assert torch.equal(sw.explain(pickle.loads(pickle.dumps(model)), x, "grad_cam").raw, e.raw)
