"""Per method: parameters that make it quick on a tiny network, and what it costs with some parameters on a tiny ViT."""

SMALL = {
    "smooth_grad": {"samples": 5},
    "integrated_gradients": {"rule": "midpoint", "steps": 5},
}

COSTS = [  # method, parameters, gradient rows, forward rows an image
    ("gradient", {}, 1, 0),
    ("grad_cam", {}, 1, 0),
    ("random_map", {}, 0, 1),
    ("edge_map", {}, 0, 1),
    ("center_map", {}, 0, 1),
    ("smooth_grad", {"samples": 7}, 7, 1),
    ("integrated_gradients", {"rule": "right", "steps": 7}, 7, 2),
    ("integrated_gradients", {"rule": "left", "steps": 1}, 1, 2),
    ("integrated_gradients", {"rule": "midpoint", "steps": 6}, 6, 2),
    ("integrated_gradients", {"rule": "gauss_legendre", "steps": 5}, 5, 2),
    ("integrated_gradients", {"rule": "trapezoid", "steps": 7}, 8, 2),
]
