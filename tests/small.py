"""Per method: parameters that make it quick on a tiny network, and what it costs with some parameters on a tiny ViT."""

import torch

from nets import tiny_cnn, tiny_vit
from seewhy.registry import METHODS

REFERENCES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))

SMALL = {
    "smooth_grad": {"samples": 4},
    "smooth_grad_squared": {"samples": 4},
    "var_grad": {"samples": 4},
    "integrated_gradients": {"rule": "midpoint", "steps": 5},
    "blur_integrated_gradients": {"rule": "midpoint", "steps": 5, "max_sigma": 5.0},
    "expected_gradients": {"samples": 4, "references": REFERENCES[:2]},
    "guided_integrated_gradients": {"steps": 4},
    "idgi": {"steps": 5},
    "rise": {"samples": 8},
    "occlusion": {"patch": 12},
    "extremal_perturbation": {"iterations": 2},
    "lime": {"samples": 12, "segmentation": "grid", "superpixels": 4},
    "kernel_shap": {"samples": 60, "segmentation": "grid", "superpixels": 9},
}

COSTS = [  # method, parameters, gradient rows, forward rows an image
    ("gradient", {}, 1, 0),
    ("grad_cam", {}, 1, 0),
    ("cam", {}, 2, 0),
    ("grad_cam_pp", {}, 1, 0),
    ("grad_cam_pp", {"variant": "paper"}, 1, 0),
    ("xgrad_cam", {}, 1, 0),
    ("hires_cam", {"layer": "blocks.1.norm1"}, 1, 0),
    ("layer_cam", {}, 1, 0),
    ("layer_cam", {"layer": ["patch", "blocks.0"]}, 1, 0),
    ("finer_cam", {"references": 2}, 1, 0),
    ("eigen_cam", {}, 0, 1),
    ("score_cam", {}, 0, 17),
    ("score_cam", {"weights": "increase"}, 0, 18),
    ("score_cam", {"weights": "channel_softmax"}, 0, 17),
    ("ablation_cam", {}, 0, 17),
    ("occlusion", {}, 0, 50),
    ("occlusion", {"patch": (32, 20), "stride": (32, 10)}, 0, 4),
    ("rise", {"samples": 7}, 0, 8),
    ("extremal_perturbation", {"iterations": 4}, 4, 5),
    ("lime", {"samples": 9, "segmentation": "grid", "superpixels": 9}, 0, 10),
    ("kernel_shap", {"samples": 61, "segmentation": "grid", "superpixels": 9}, 0, 62),
    ("kernel_shap", {"samples": 14, "segmentation": "grid", "superpixels": 4}, 0, 16),
    ("attention_rollout", {}, 0, 1),
    ("transformer_attribution", {}, 1, 0),
    ("le_grad", {}, 2, 1),
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

REPRESENTATIVES = [  # one of each kind: what explain() and the model do for these, they do for all
    "gradient",
    "smooth_grad",
    "integrated_gradients",
    "grad_cam",
    "score_cam",
    "occlusion",
    "rise",
    "random_map",
    "edge_map",
]


def takes(method, kind):
    """Whether a method can read a network of this kind of nets.NETS; else it is refused."""
    if METHODS[method].needs_relu or method in ("cam", "hires_cam"):  # their heads are refused there, with the reason
        return kind != "vit"
    return kind == "vit" or not METHODS[method].needs_attention


def net_of(method, build=tiny_cnn):
    """A tiny network that this method can read: `build()` where it can."""
    if METHODS[method].needs_relu or (method == "cam" and build is tiny_vit):
        return tiny_cnn()
    return tiny_vit() if METHODS[method].needs_attention else build()


def knowing(method, target):
    """What a class-agnostic method must be told where a class is asked."""
    return {"ignore_target": True} if METHODS[method].class_agnostic and target is not None else {}
