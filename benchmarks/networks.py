"""Every architecture module of timm, every classifier of torchvision, transformers' vision models; random weights."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import nn

import seewhy as sw
from seewhy.model import VisionModel

CLASSES, SIZE, BATCH = 10, 224, 5  # an image, and it with each quadrant changed, in one forward
HALF = (0.5, 0.5, 0.5)
HEADLESS = "_enc"  # ends the names of timm's encoders, which return a vector per token: they know no class
LOGITS = (sw.target.logit(1), sw.target.logit(2))  # of random weights a probability is often 0 or 1 to the last digit


@dataclass(frozen=True)
class Network:
    """How a network is built, and two questions whose maps must differ."""

    source: str
    name: str
    build: Callable[[], VisionModel]
    questions: tuple[Any, Any] = LOGITS


@contextlib.contextmanager
def quiet():
    """Without what libraries say of weights that nobody loads."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def awake(module, size=SIZE):
    """A network as it would be after some training, as far as its random weights allow.

    Random numbers where it starts with zeros (a head of zeros gives every class the same score), 0.1 for layer scales of
    1e-3 and less, and the running statistics of every batch normalization taken from eight pictures of noise: signals
    would fade or explode through a hundred layers that nobody has trained.
    """
    module.eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            constant = parameter.is_floating_point() and parameter.numel() > 1 and bool((parameter == 0).all())
            if constant and (parameter.ndim > 1 or name.endswith("weight")):
                parameter.normal_(0, 0.02)
            elif parameter.numel() > 1 and 0 < float(parameter.abs().max()) <= 1e-3 and parameter.std() == 0:
                parameter.fill_(0.1)
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over the pictures
            norm.train()
        if norms:
            module(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0)))
    return module.eval()


def timm_networks(modules=None):
    """Of every architecture module the smallest model, and the smallest that is not one of timm's own test models."""
    for module in modules or timm.list_modules():
        sizes = {name: _parameters(name) for name in timm.list_models(module=module) if not name.endswith(HEADLESS)}
        real = [name for name in sizes if not name.startswith("test_")]
        for name in dict.fromkeys(min(names, key=sizes.__getitem__) for names in (list(sizes), real)):
            yield Network(f"timm.{module}", name, partial(timm_network, name))


def _parameters(name):
    with torch.device("meta"), quiet():
        return sum(p.numel() for p in timm.create_model(name, num_classes=CLASSES).parameters())


def timm_network(name):
    """At 224 pixels where the architecture takes them, else at its own size."""
    config = timm.get_pretrained_cfg(name)
    module = timm.create_model(name, num_classes=CLASSES).eval()
    size = SIZE if _takes(module, SIZE) else config.input_size[-1]
    return sw.wrap(
        awake(module, size), mean=config.mean, std=config.std, size=size, name=f"timm:{name}", batch_size=BATCH
    )


def _takes(module, size):
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def torchvision_networks():
    """All that torchvision lists as classifiers."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield Network("torchvision", name, partial(torchvision_network, name))


def torchvision_network(name):
    """At 224 pixels; Inception at 299, below which it has no cells left."""
    settings = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **settings)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    size = 299 if name == "inception_v3" else SIZE
    return sw.wrap(awake(module, size), mean=mean, std=std, size=size, name=f"torchvision:{name}", batch_size=BATCH)


WIDTH = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192}
VIT = {**WIDTH, "image_size": SIZE, "patch_size": 16}
HIERARCHY = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "image_size": SIZE}
PYRAMID = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 2, 1]}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DETECTOR = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 12}


def transformers_networks():
    """Small configurations of transformers' vision models."""
    t = transformers

    def network(name, network_class, config, questions=LOGITS, task="multiclass"):
        return Network("transformers", name, partial(transformers_network, network_class, config, task), questions)

    yield network("ViT", t.ViTForImageClassification, t.ViTConfig(**VIT, num_labels=CLASSES))
    yield network("DeiT", t.DeiTForImageClassification, t.DeiTConfig(**VIT, num_labels=CLASSES))
    yield network("BEiT", t.BeitForImageClassification, t.BeitConfig(**VIT, num_labels=CLASSES))
    yield network("DINOv2", t.Dinov2ForImageClassification, t.Dinov2Config(**VIT, num_labels=CLASSES))
    registers = t.Dinov2WithRegistersConfig(**VIT, num_labels=CLASSES)
    yield network("DINOv2 with registers", t.Dinov2WithRegistersForImageClassification, registers)
    yield network("Swin", t.SwinForImageClassification, t.SwinConfig(**HIERARCHY, num_labels=CLASSES))
    yield network("Swinv2", t.Swinv2ForImageClassification, t.Swinv2Config(**HIERARCHY, num_labels=CLASSES))
    yield network("ConvNeXt", t.ConvNextForImageClassification, t.ConvNextConfig(**PYRAMID, num_labels=CLASSES))
    yield network("ConvNeXtV2", t.ConvNextV2ForImageClassification, t.ConvNextV2Config(**PYRAMID, num_labels=CLASSES))
    yield network("ResNet", t.ResNetForImageClassification, t.ResNetConfig(**RESNET, num_labels=CLASSES))
    yield network(
        "MobileViT", t.MobileViTForImageClassification, t.MobileViTConfig(num_labels=CLASSES, initializer_range=0.05)
    )
    yield network("MobileNetV2", t.MobileNetV2ForImageClassification, t.MobileNetV2Config(num_labels=CLASSES))
    regnet = t.RegNetConfig(embedding_size=16, **PYRAMID, groups_width=16, num_labels=CLASSES)
    yield network("RegNet", t.RegNetForImageClassification, regnet)
    clip = t.CLIPVisionConfig(**VIT, projection_dim=32)
    yield network("CLIP vision", t.CLIPVisionModelWithProjection, clip, similarities(32), "embedding")
    siglip = t.SiglipVisionConfig(**VIT)
    yield network("SigLIP vision", t.SiglipVisionModel, siglip, similarities(96), "embedding")
    segformer = t.SegformerConfig(num_labels=CLASSES, hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 1, 1])
    yield network("SegFormer", t.SegformerForImageClassification, segformer)
    regions = tuple(sw.target.region(torch.ones(SIZE // 4, SIZE // 4), k) for k in (1, 2))
    yield network("SegFormer, segments", t.SegformerForSemanticSegmentation, segformer, regions, "segmentation")
    yield from _detectors(network)


def _detectors(network):
    t = transformers
    backbone = t.ResNetConfig(**RESNET, out_features=["stage4"])
    detr = t.DetrConfig(
        **DETECTOR, backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, num_labels=CLASSES
    )
    yield network("DETR", t.DetrForObjectDetection, detr, (first_query(1), first_query(2)), "detection")
    several = t.RTDetrResNetConfig(**RESNET, out_features=["stage2", "stage3", "stage4"])
    rt_detr = t.RTDetrConfig(
        **{**DETECTOR, "encoder_hidden_dim": 64},
        backbone_config=several,
        encoder_in_channels=[32, 64, 96],
        decoder_in_channels=[64, 64, 64],
        num_labels=CLASSES,
    )
    yield network("RT-DETR", t.RTDetrForObjectDetection, rt_detr, (first_query(1), first_query(2)), "detection")


def transformers_network(network_class, config, task):
    """A network of transformers from its configuration."""
    return sw.wrap(
        awake(network_class(config)),
        mean=HALF,
        std=HALF,
        size=SIZE,
        task=task,
        name=network_class.__name__,
        batch_size=BATCH,
    )


def similarities(width):
    """Cosine similarity to either of two directions."""
    generator = torch.Generator().manual_seed(3)
    return tuple(sw.target.similarity(torch.randn(width, generator=generator)) for _ in range(2))


def first_query(k):
    """The logit of class k summed over the queries of a detector."""
    return lambda outputs: outputs.logits[:, :, k].sum(1)


def every_network():
    """All of them, one at a time."""
    yield from transformers_networks()
    yield from timm_networks()
    yield from torchvision_networks()


__all__ = ["Network", "every_network", "nn", "quiet", "timm_networks", "torchvision_networks", "transformers_networks"]
