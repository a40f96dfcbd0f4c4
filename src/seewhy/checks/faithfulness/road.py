"""ROAD: pixel flipping where hidden pixels are imputed from their neighbors, so that the hole has no edge of its own."""

import torch

from seewhy.checks.faithfulness.asking import Subject
from seewhy.checks.faithfulness.flipping import Fill
from seewhy.errors import UsageError
from seewhy.imputation import impute
from seewhy.perturb import image_generator

NOISE = 0.01  # standard deviation, as in the authors' code


def road_fill(subject: Subject) -> Fill:
    """Noisy linear imputation: the solution of x_i = sum_n w_n x_n on the hidden pixels, plus N(0, 0.01^2) on each.

    UsageError for images that have not two axes.
    """
    x = subject.x
    if x.ndim != 4:
        raise UsageError(f"ROAD imputes from 8 neighbors on 2 axes; these images have axes {tuple(x.shape[2:])}.")
    drawn = [torch.randn(image.shape, generator=image_generator(image, subject.seed)) for image in x]
    noise = NOISE * torch.stack(drawn).to(x)
    return lambda image, hidden: impute(x[image], hidden) + hidden * noise[image]
