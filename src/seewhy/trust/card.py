"""The trust card: one method on one model and these images, a row per check, each with its evidence."""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import runfolder
from seewhy.checks import CheckResult, Verdict, read_result
from seewhy.errors import RefusalError, UsageError, known_name
from seewhy.explanation import Explanation, explain_rows, where_black_is_a_value
from seewhy.explanation.inputs import Images, Shown, read_inputs
from seewhy.identity import identity
from seewhy.model import VisionModel
from seewhy.registry import CHECKLIST, CHECKS, MethodInfo, find_method
from seewhy.trust.binding import Remembered, bind, given_to, weights_of
from seewhy.trust.documentation import documentation
from seewhy.trust.forecast import COSTLY, FEW, check_needs
from seewhy.trust.setup import Setup, examine_setup
from seewhy.wrapping import bare

DEFAULT = (*CHECKLIST, "faithfulness")
FURTHER = ("manipulation", "grid_pointing")  # dear, or of many images of many classes: with --all
OF_ANNOTATIONS = ("localization", "resolution")  # these take boxes and masks
DOCUMENTATION = "Documentation"
DIGITS = 20  # of the hash by which cards and rows are kept
Settings = Mapping[str, Mapping[str, Any]]
Progress = Callable[[str, int, int], None]  # what is being done, checks done, checks in all


@dataclass(frozen=True)
class TrustCard:
    """What the checks found of one method on one model: a row each, and what the network says of the labels."""

    about: dict[str, Any]  # id, method, model and its fingerprint, parameters, images, seed, setup
    rows: dict[str, CheckResult]  # by the id under which they are kept
    explanation: Explanation  # the maps that were checked
    seconds: float

    def __getitem__(self, name: str) -> CheckResult:
        """The row of this check."""
        for row in self.rows.values():
            if row.check == name:
                return row
        raise KeyError(f"{name!r}: this card has {', '.join(row.check for row in self.rows.values())}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.about, "checks": [_titled(row) for row in self.rows.values()], "seconds": self.seconds}

    def save(self, folder: str | Path) -> Path:
        """Write the card and the maps that were checked into a run folder (made where it does not exist)."""
        path = runfolder.open_folder(folder)
        self.explanation.append_to(path, checks=list(self.rows))
        for key, row in self.rows.items():
            _write(path, key, self.about, row)
        return path

    def files(self) -> list[Path]:
        """What was written of it and of the maps that were checked; UsageError before it is saved."""
        written = self.explanation.files()
        return sorted({*written, *(path for one in written if (path := one.parent / "checks.jsonl").exists())})

    def __str__(self) -> str:
        about = self.about
        lines = [f"{about['title']} on {about['model']}, {len(about['images'])} images, {self.seconds:.0f} s"]
        if about["setup"] is not None:
            lines.append(f"the network on the given labels: {about['setup']['sentence']}")
        width = max(len(title(row.check)) for row in self.rows.values())
        lines += [f"{title(r.check).ljust(width)}  {r.verdict!s:10}  {r.sentence}" for r in self.rows.values()]
        return "\n".join(lines)

    __repr__ = __str__


def title(check: str) -> str:
    """The name of a check as people write it."""
    return DOCUMENTATION if check == "documentation" else CHECKS[check].title


def _titled(row: CheckResult) -> dict[str, Any]:
    return {"title": title(row.check), **row.to_dict()}


def _write(folder: Path, key: str, about: Mapping[str, Any], row: CheckResult) -> None:
    """The row where the page reads it, and in the ledger, which is a room above: resolved when called."""
    written = runfolder.append_check(folder, {"id": key, "card": about, **_titled(row)})
    importlib.import_module("seewhy.ledger.record").record_check(folder, written)


def check(
    model: VisionModel | nn.Module,
    images: Images,
    method: str | MethodInfo = "grad_cam",
    labels: Sequence[int | str] | None = None,
    only: str | Sequence[str] | None = None,
    *,
    target: Any = None,
    layer: Any = None,
    boxes: Any = None,
    masks: Any = None,
    settings: Settings | None = None,
    anyway: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **params: Any,
) -> TrustCard:
    """The trust card of a method on this model and these images: every check that applies, each with its evidence.

    model, images, method, target, layer, seed, params: as for `explain`. labels: the true class of each image (index or
    name): then the network's own accuracy comes first, and nothing is explained where labels or normalization look wrong,
    unless `anyway`. only: the checks to run, by name (see `sw.checks()`); None: the production checklist, faithfulness,
    and localization where `boxes` or `masks` are given. settings: parameters of checks, {"faithfulness": {"fills": (...)}}.
    out: a run folder that keeps each row as soon as it is done; the same call again goes on where it stopped. progress:
    called with what is being done. A check that does not apply says why in its row. Many images give narrow intervals; 9
    are needed for the nulls (200 pairs). Where a map costs more than 20 rows, randomization looks at the first 9 images,
    class at 8, stability at 7 (the fewest for its null), cost at 2; each row says its n. UsageError, before any work, for an
    unknown check or parameter.
    """
    info = find_method(method)
    asked = prepared(info, _wanted(only, boxes, masks), seed, settings, boxes, masks)
    model = model if isinstance(model, VisionModel) else bare(model)
    x, sources = read_inputs(model, images)
    folder = None if out is None else runfolder.open_folder(out)
    setup = examined(model, x, labels, anyway=anyway)
    return card_of(model, x, sources, info, target, layer, seed, params, asked, setup, folder, progress)


def prepared(
    info: MethodInfo,
    wanted: Sequence[str],
    seed: int,
    settings: Settings | None,
    boxes: Any = None,
    masks: Any = None,
) -> dict[str, dict[str, Any]]:
    """Of every check that is wanted its parameters; UsageError where there is no such check or parameter, or one lacks."""
    for name in wanted:
        known_name("check", name, [*CHECKS, "documentation"])
    of_checks = _settings(settings, boxes, masks)
    given = {name: given_to(name, info, seed) | of_checks.get(name, {}) for name in wanted}
    check_needs(wanted, given)
    return given


def examined(model: VisionModel, x: Tensor, labels: Sequence[int | str] | None, *, anyway: bool) -> Setup | None:
    """What the network says of the labels, if there are any; RefusalError where they or the input look wrong."""
    if labels is None:
        return None
    with torch.inference_mode(False):
        setup = examine_setup(model, x, labels)
    if setup.warning and not anyway:
        raise RefusalError(f"{setup.warning} Nothing was explained; anyway=True (--anyway) goes on.")
    return setup


def card_of(
    model: VisionModel,
    x: Tensor,
    sources: list[Shown],
    info: MethodInfo,
    target: Any,
    layer: Any,
    seed: int,
    params: dict[str, Any],
    asked: Settings,
    setup: Setup | None,
    folder: Path | None,
    progress: Progress | None = None,
) -> TrustCard:
    """check() for images that are read already; asked: the parameters of every check that is wanted."""
    begun, tell = time.perf_counter(), progress or (lambda _what, _done, _all: None)
    tell(info.title, 0, len(asked) + 1)
    params = where_black_is_a_value(info, sources, params)  # the checks ask the map that is explained
    explanation, rows_x, question, found = explain_rows(model, x, sources, info, target, layer, seed, params)
    maps = Remembered(bind(info, layer, seed, **params), rows_x, question, found, weights_of(model))
    about = _about(info, explanation, seed, setup)
    hashed = partial(str, about["model_sha256"])  # before any check touches the weights, and puts them back
    explanation = replace(explanation, fingerprint=hashed)
    known = {} if folder is None else {record["id"]: record for record in runfolder.read_checks(folder)}
    keys = {name: identity([about["id"], name, given])[:DIGITS] for name, given in asked.items()}
    if folder is not None:
        explanation.append_to(folder, checks=list(keys.values()))
    rows: dict[str, CheckResult] = {}
    for done, (name, given) in enumerate(asked.items(), 1):
        tell(title(name), done, len(asked) + 1)
        key = keys[name]
        if key in known:
            rows[key] = read_result(known[key])
            continue
        with torch.inference_mode(False):
            rows[key] = _row(model, name, maps, explanation, given, info)
        if folder is not None:
            _write(folder, key, about, rows[key])
    return TrustCard(about, rows, explanation, time.perf_counter() - begun)


def _about(info: MethodInfo, explanation: Explanation, seed: int, setup: Setup | None) -> dict[str, Any]:
    """What a card is of; its id is the same for the same method, settings, weights, images and questions."""
    about = {
        "method": info.name,
        "title": info.title,
        "model": explanation.provenance["model"],
        "model_sha256": explanation.fingerprint(),
        "parameters": explanation.parameters,
        "layer": explanation.layer,
        "targets": explanation.target_text,
        "images": [explanation.sources[i].name for i in explanation.image_index],
        "seed": seed,
        "provenance": explanation.provenance,
    }
    said = None if setup is None else setup.to_dict()  # of the labels: no map depends on them
    lasting = {name: value for name, value in explanation.provenance.items() if name != "batch_size"}  # is timed anew
    own = identity([{**about, "provenance": lasting}, explanation.images])[:DIGITS]
    return {"id": own, **about, "setup": said}


def _row(
    model: VisionModel,
    name: str,
    maps: Remembered,
    explanation: Explanation,
    settings: Mapping[str, Any],
    info: MethodInfo,
) -> CheckResult:
    if name == "documentation":
        return documentation([record for record, _, _ in explanation.rows()], info.resolution == "layer")
    spent = sum(explanation.evidence[kind].float().mean() for kind in ("forward_rows", "gradient_rows"))
    if spent > COSTLY and name in FEW:
        maps = maps.first(FEW[name])
    try:
        found: CheckResult = CHECKS[name].function(model, maps.images, maps.target, maps, **settings)
    except RefusalError as error:
        return CheckResult(name, (), Verdict.NONE, f"It does not apply here: {error}", settings=dict(settings))
    return found


def _wanted(only: str | Sequence[str] | None, boxes: Any, masks: Any) -> list[str]:
    if only is None:
        annotated = boxes is not None or masks is not None
        return [*DEFAULT, *(["localization"] if annotated else [])]
    names = [only] if isinstance(only, str) else list(dict.fromkeys(only))
    if not names:
        raise UsageError("only=[] leaves no check to run.")
    return names


def _settings(settings: Settings | None, boxes: Any, masks: Any) -> dict[str, dict[str, Any]]:
    """Per check its parameters; UsageError, before any work, for a check or a parameter that there is not."""
    found = {name: dict(given) for name, given in (settings or {}).items()}
    for name, given in found.items():
        known_name("check", name, CHECKS)
        for parameter in given:
            known_name(f"parameter of the check {name}", parameter, CHECKS[name].parameters)
    for parameter, value in (("boxes", boxes), ("masks", masks)):
        if value is not None:
            for name in OF_ANNOTATIONS:
                found.setdefault(name, {}).setdefault(parameter, value)
    return found
