"""Acceptance: what users of today's saliency tools suffer from, one situation at a time, through public names only.

Held for every registered method elsewhere, and so not repeated here: frozen weights, no_grad and inference mode, train
mode, a map between backward and step, two models around one network, batches, repeatability (tests/test_contract.py);
what a layer hook catches (tests/test_capture.py); which layer is taken (tests/test_layer_discovery.py); an accelerator
(tests/test_accelerator.py).
"""
