"""What an audit will cost, before it is begun: rows at most, from what its rooms say of themselves."""

from collections.abc import Sequence

from seewhy.audit.confirm import MOST, MOST_UNRELATED, UNRELATED
from seewhy.audit.examined import QUARTERS, settings_of
from seewhy.audit.local import MOST_MARKS
from seewhy.audit.run import CHECKED, CHECKS, METHODS, STAGES
from seewhy.audit.setup import SETUP_IMAGES
from seewhy.audit.sightings import EACH as WINDOWS
from seewhy.audit.sightings import MOST_IMAGES, RECIPIENTS
from seewhy.audit.strips import EACH as STRIPS
from seewhy.data.dataset import DataSet
from seewhy.explanation import rows_per_image
from seewhy.model import VisionModel
from seewhy.registry import find_method
from seewhy.trust.forecast import forecast_checks
from seewhy.trust.setup import NORMALIZATIONS

TRIALS = 2 * MOST_MARKS  # as many as there can be marks, at one place and moving
EDITS = 3  # of one pattern: it is pasted, and two of what removes it or stands against the pasting, image by image
INPUTS = 2 + len(NORMALIZATIONS)  # of the set-up check: as it is, with channels reversed, under each normalization


def forecast_audit(
    model: VisionModel,
    dataset: DataSet,
    methods: Sequence[str] = METHODS,
    *,
    explained: int = 1000,
    per_class: int = 40,
    checks: Sequence[str] = CHECKS,
    trials: int = TRIALS,
) -> tuple[int, int]:
    """(forward, gradient) rows of an audit, an upper bound where so many trials of patterns are made.

    How many there are, only the pictures tell (what may be two things is tried twice); a further one costs `rows_of_trial`
    forward rows at most.
    """
    images, shape = len(dataset), model.input_shape()
    examined, mapped = min(images, explained), min(images, explained, per_class * _strata(model, dataset))
    forward = images + INPUTS * min(images, SETUP_IMAGES)
    forward += examined * sum(len(kinds) for kinds in STAGES)  # at first, and when what a kind told is taken away
    forward += RECIPIENTS * (1 + len(methods) * WINDOWS * min(mapped, MOST_IMAGES))
    forward += trials * rows_of_trial(examined) + mapped  # what lies under each map
    gradient = 0
    for name in methods:
        rows = rows_per_image(model, find_method(name), shape, None, None, settings_of(name, shape))
        forward, gradient = forward + mapped * rows[0], gradient + mapped * rows[1]
    if checks:
        rows = forecast_checks(model, find_method(methods[0]), {}, shape, min(examined, CHECKED), checks, {})
        forward, gradient = forward + rows[0], gradient + rows[1]
    return forward, gradient


def _strata(model: VisionModel, dataset: DataSet) -> int:
    """Of how many classes, or quarters of the score, right and wrong images are explained."""
    return 2 * (QUARTERS if model.task == "regression" else len({str(sample.label) for sample in dataset.samples}))


def rows_of_trial(examined: int) -> int:
    """Forward rows at most of one pattern tried among so many examined images, the pictures of a finding included."""
    shown = 2 * 2 * min(STRIPS, examined)  # removed and pasted, before and after
    return EDITS * min(MOST, examined) + UNRELATED * min(MOST_UNRELATED, examined) + shown
