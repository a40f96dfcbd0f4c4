"""Per method: parameters that make it quick on a tiny network, and what it costs with some parameters on a tiny ViT."""

import torch

REFERENCES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))

SMALL = {
    "smooth_grad": {"samples": 5},
    "smooth_grad_squared": {"samples": 5},
    "var_grad": {"samples": 5},
    "integrated_gradients": {"rule": "midpoint", "steps": 5},
    "blur_integrated_gradients": {"rule": "midpoint", "steps": 5, "max_sigma": 5.0},
    "expected_gradients": {"samples": 6, "references": REFERENCES},
    "guided_integrated_gradients": {"steps": 6},
    "idgi": {"steps": 5},
}

COSTS = [  # method, parameters, gradient rows, forward rows an image
    ("gradient", {}, 1, 0),
    ("grad_cam", {}, 1, 0),
    ("random_map", {}, 0, 1),
    ("edge_map", {}, 0, 1),
    ("center_map", {}, 0, 1),
    ("smooth_grad", {"samples": 7}, 7, 1),
    ("smooth_grad_squared", {"samples": 7}, 7, 1),
    ("var_grad", {"samples": 6}, 7, 0),
    ("gradient_x_input", {}, 1, 0),
    ("guided_backprop", {}, 1, 0),
    ("deconvnet", {}, 1, 0),
    ("guided_grad_cam", {}, 2, 0),
    ("integrated_gradients", {"rule": "right", "steps": 7}, 7, 2),
    ("integrated_gradients", {"rule": "left", "steps": 1}, 1, 2),
    ("integrated_gradients", {"rule": "right", "steps": 3, "baseline": ["black", "white", "noise"]}, 9, 6),
    ("blur_integrated_gradients", {"rule": "midpoint", "steps": 6}, 6, 2),
    ("expected_gradients", {"samples": 6, "references": REFERENCES}, 6, 5),
    ("guided_integrated_gradients", {"steps": 6}, 6, 2),
    ("idgi", {"steps": 5}, 5, 1),
    ("integrated_gradients", {"rule": "midpoint", "steps": 6}, 6, 2),
    ("integrated_gradients", {"rule": "gauss_legendre", "steps": 5}, 5, 2),
    ("integrated_gradients", {"rule": "trapezoid", "steps": 7}, 8, 2),
]
