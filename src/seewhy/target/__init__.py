"""What is explained, as data: one number per row of the network's output, and the scale it is read on.

A row is one forward of one (image, target) pair. A target is called as `target(outputs, rows) -> (R,)` with `rows[r]`
the image that output row r belongs to, so the same question survives chunks, path steps and masks.
"""

from seewhy.target.given import box, logit, margin, of, output, probability, region, resolve, similarity
from seewhy.target.outputs import SCALES, TASKS, Scale, Task, is_detections, probabilities, scores
from seewhy.target.question import PREDICTED, RECIPE, Kind, Target, predicted_classes, stand_in

__all__ = [
    "PREDICTED",
    "RECIPE",
    "SCALES",
    "TASKS",
    "Kind",
    "Scale",
    "Target",
    "Task",
    "box",
    "is_detections",
    "logit",
    "margin",
    "of",
    "output",
    "predicted_classes",
    "probabilities",
    "probability",
    "region",
    "resolve",
    "scores",
    "similarity",
    "stand_in",
]
