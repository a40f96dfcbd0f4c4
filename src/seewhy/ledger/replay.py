"""Replay: a recorded explanation computed again from its model and image, and what has changed since."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy import runfolder
from seewhy.errors import RefusalError, SeewhyError, UsageError
from seewhy.explanation import Explanation, explain_rows
from seewhy.explanation.inputs import Shown
from seewhy.ledger.again import pixels_of, question_of, settings_of
from seewhy.ledger.changes import (
    Change,
    code_changes,
    image_changes,
    machine_changes,
    model_changes,
    question_changes,
    reasons,
)
from seewhy.ledger.schema import chain_hash
from seewhy.ledger.store import Ledger, Record, open_ledger
from seewhy.loading import load
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, find_method
from seewhy.similarity import rank_correlation
from seewhy.wrapping import bare, wrap

# Of the map's largest absolute value, in float32: what one image may differ by beside others in a batch (docs/ledger.md).
TOLERANCE = 1e-5
ROUNDINGS = 19  # of 20 maps that differ by rounding alone, the recorded one is the furthest one time in 20
Verdict = Literal["bit-equal", "within tolerance", "different"]


@dataclass(frozen=True)
class Replay:
    """What came of computing a recorded explanation again."""

    number: int  # of the record
    key: str
    verdict: Verdict
    sentence: str
    changed: tuple[Change, ...]  # everything that is not as it was recorded
    may_differ: tuple[str, ...]  # why the last digits may be others here; none: the map must be the same, bit by bit
    tolerance: float  # of the map's largest absolute value, where they may
    roundings: int  # runs with pixels moved by one unit in the last place, which showed it; 0: it was given, or is 1e-5
    difference: dict[str, float] | None  # n cells, largest, relative, rank_correlation; None: only a hash is left
    score: tuple[float | None, float | None]  # the explained number, then and now
    pixels: str  # where they were read
    seconds: float
    explanation: Explanation  # the map as it is now

    @property
    def ok(self) -> bool:
        """Whether the record was reproduced."""
        return self.verdict != "different"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the map."""
        named = {name: value for name, value in vars(self).items() if name not in ("explanation", "changed")}
        plain: dict[str, Any] = runfolder.plain({**named, "changed": [asdict(change) for change in self.changed]})
        return plain

    def __str__(self) -> str:
        lines = [self.sentence, *(f"  changed: {change}" for change in self.changed)]
        lines += [f"  the last digits may differ: {reason}" for reason in self.may_differ]
        return "\n".join([*lines, f"  pixels: {self.pixels}"])

    __repr__ = __str__


def replay(
    folder: str | Path,
    record_id: int | str,
    *,
    model: VisionModel | nn.Module | None = None,
    image: Any = None,
    root: str | Path | None = None,
    method: MethodInfo | None = None,
    target: Any = None,
    beside: Mapping[str, Tensor] | None = None,
    parameters: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> Replay:
    """Compute a recorded explanation again from its model and image, and compare it with the record.

    folder: the run folder; record_id: a record's number, or the start of its key. model: None loads it as the record says.
    image: None is the recorded path, under `root` where that is given, else the pixels that the run folder keeps. What a
    record holds only the hash of is given again: method (from_captum), target (functions, masks, embeddings), beside and
    parameters (pictures). tolerance: of the map's largest absolute value, used only where the last digits may differ, with
    the reason; None: 1e-5 in float32, or what rounding alone does to this very map: the largest difference in up to 19 runs
    with every pixel moved by one unit in the last place (a gradient jumps where a ReLU flips); 0 in other precisions.
    RefusalError where it cannot be replayed, UsageError where there is no such record.
    """
    begun = time.perf_counter()
    with open_ledger(folder, read_only=True) as ledger:
        record = find_explanation(ledger, record_id)
        known, lost = _recorded_map(ledger, record)
        network = model if isinstance(model, VisionModel) else _network(record, model)
        x, shown, where = pixels_of(ledger, record, network, image, root)
    said = record.content
    info = _method(record, method)
    settings = settings_of(record, info, parameters or {})
    question = question_of(record, info, target, beside)
    changed = [*model_changes(said, network), *image_changes(said, x, shown)]  # by hashes, before any work
    again = partial(_explain, network, shown, info, question, said, settings, beside)
    with _as_it_was(said, network):
        e = again(x)
        changed += [*question_changes(said, e), *code_changes(said), *machine_changes(said, e)]
        may_differ = reasons(said, e, changed)
        allowed = tolerance if tolerance is not None else TOLERANCE if said["precision"] == "float32" else 0.0
        if not changed and (said.get("rows") or 1) > 1 and _hash(e, 0) != said["map"]["sha256"]:
            e = again(
                x.expand(said["rows"], *x.shape[1:])
            )  # who shares a batch changes the last digits: its own copies
        i = next((i for i in range(len(e)) if _hash(e, i) == said["map"]["sha256"]), 0)
        here, runs = e.raw[i].cpu().numpy(), 0
        difference = None if known is None else _difference(known, here)
        open_question = bool(may_differ and tolerance is None and allowed) and not any(c.decides for c in changed)
        if known is not None and difference is not None and open_question and allowed < difference["relative"] < np.inf:
            scale = float(np.abs(known).max())
            runs, allowed = _rounding(again, x, here, scale, said["seed"], difference["relative"])
    verdict, sentence = _judge(record, e, i, difference, lost, changed, may_differ, allowed, runs)
    score = (said["score"], runfolder.plain(float(e.scores[i])))
    found = (tuple(changed), tuple(may_differ), allowed, runs, difference, score, where, time.perf_counter() - begun)
    return Replay(record.number, record.key, verdict, sentence, *found, e)


def recorded_model(
    folder: str | Path,
    record_id: int | str,
    *,
    specification: str | None = None,
    weights: str | Path | None = None,
    labels: str | Path | None = None,
    device: str | None = None,
) -> VisionModel:
    """The network of a recorded explanation, loaded as the record says; what is given here takes the place of what it says.

    device: None is the recorded one where it is there, else the CPU. RefusalError where the record does not say how the
    network was loaded, or where it cannot be loaded so.
    """
    with open_ledger(folder, read_only=True) as ledger:
        record = find_explanation(ledger, record_id)
    given = {"specification": specification, "weights": weights, "labels": labels}
    return _loaded(record, {name: value for name, value in given.items() if value is not None}, device)


def find_explanation(ledger: Ledger, record_id: int | str) -> Record:
    """The explanation of this number, or whose key starts so; UsageError where there is none, or several."""
    found = ledger.named(record_id, "explanation")
    if len(found) != 1:
        several = f"{len(found)} explanations have a key that starts with {str(record_id)!r}"
        none = f"no explanation has the number {record_id} or a key that starts so; {ledger.folder} holds "
        known = found or ledger.read("explanation")
        numbers = ", ".join(str(record.number) for record in known[:10]) or "none"
        more = ", ..." if len(known) > 10 else ""
        raise UsageError(f"{several if found else f'{none}{len(known)}'} (numbers {numbers}{more}).")
    r = found[0]
    if chain_hash(r.previous, r.number, r.time, r.kind, r.key, r.content) != r.hash:
        raise RefusalError(
            f"record {r.number} was changed after it was written: its hash is not its own. Nothing to replay."
        )
    return r


# -- the same call again -------------------------------------------------------------------------------------------------


def _network(record: Record, module: nn.Module | None) -> VisionModel:
    """The model as it was recorded; a bare module with the recorded pixels."""
    if module is None:
        return _loaded(record, {}, None)
    said = record.content["network"] or {}
    if said.get("preprocess"):
        raise RefusalError(
            f"record {record.number} was made with a preprocess of the user's own ({said['preprocess']}): pass the model as "
            "sw.wrap(module, preprocess=...)."
        )
    if said.get("size") is None and said.get("mean") is None:
        return bare(module)
    given = {name: value for name, value in said.items() if name not in ("loaded", "preprocess") and value is not None}
    return wrap(module, **given, task=record.content["task"], precision=record.content["precision"])


def _loaded(record: Record, given: dict[str, Any], device: str | None) -> VisionModel:
    said = record.content
    known = dict((said.get("network") or {}).get("loaded") or {})
    arguments = {**known, **given}
    if "specification" not in arguments:
        raise RefusalError(
            f"record {record.number} does not say how its model was loaded ({said['model']}, given as an object): give it, "
            "model=... (--model, --weights)."
        )
    then = str(said["machine"]["device"])
    there = torch.device(then).type == "cpu" or (torch.device(then).type == "cuda" and torch.cuda.is_available())
    try:
        return load(**arguments, device=device or (then if there else "cpu"))
    except SeewhyError as error:
        raise RefusalError(
            f"record {record.number} cannot be replayed, as its model cannot be loaded: {error} Say where it is: --model, "
            "--weights (model=...)."
        ) from error


def _method(record: Record, given: MethodInfo | None) -> MethodInfo:
    try:
        return find_method(given if given is not None else record.content["method"])
    except UsageError as error:
        raise RefusalError(
            f"record {record.number} was made by {record.content['method']!r}, a method from outside seewhy: pass it, "
            "method=sw.from_captum(...)."
        ) from error


@contextmanager
def _as_it_was(said: Mapping[str, Any], network: VisionModel) -> Iterator[None]:
    """Inside, threads and rows in a forward are those of the record: both change the last digits."""
    threads, batch_size = torch.get_num_threads(), network.batch_size
    try:
        torch.set_num_threads(said["machine"].get("threads") or threads)
        network.batch_size = said["machine"].get("batch_size")
        yield
    finally:
        torch.set_num_threads(threads)
        network.batch_size = batch_size


def _explain(
    network: VisionModel,
    shown: Shown,
    info: MethodInfo,
    question: Any,
    said: Mapping[str, Any],
    settings: Mapping[str, Any],
    beside: Mapping[str, Tensor] | None,
    x: Tensor,
) -> Explanation:
    own = dict(settings)
    layer = own.pop("layer", None)
    several = None if beside is None else {k: v[:1].expand(len(x), *v.shape[1:]) for k, v in beside.items()}
    with torch.inference_mode(False):
        return explain_rows(network, x.clone(), [shown] * len(x), info, question, layer, said["seed"], own, several)[0]


def _rounding(
    again: Callable[[Tensor], Explanation], x: Tensor, raw: NDArray[Any], scale: float, seed: int, enough: float
) -> tuple[int, float]:
    """In how many runs, and how far, rounding moves this map, in units of `scale`; it stops where that is `enough`.

    Every pixel goes up or down by one unit in the last place, at random: no more than another machine does at each layer.
    """
    generator, largest = torch.Generator().manual_seed(seed), TOLERANCE
    for run in range(1, ROUNDINGS + 1):
        up = torch.rand(x.shape, generator=generator) < 0.5
        low, high = x.new_zeros(()), x.new_tensor(torch.inf if float(x.max()) > 1 else 1.0)
        moved = torch.where(up, torch.nextafter(x, high), torch.nextafter(x, low))
        largest = max(largest, float(np.abs(again(moved).raw[0].cpu().numpy() - raw).max()) / scale)
        if largest >= enough:
            return run, largest
    return ROUNDINGS, largest


# -- the verdict ---------------------------------------------------------------------------------------------------------


def _recorded_map(ledger: Ledger, record: Record) -> tuple[NDArray[Any] | None, str]:
    """The map as it was kept, or None and why only its hash is left."""
    name, sha256 = record.content["map"]["file"], record.content["map"]["sha256"]
    if name is None:
        return None, "its map was not kept"
    try:
        values = ledger.array(name)
    except SeewhyError as error:
        return None, str(error).rstrip(".")
    if hashlib.sha256(runfolder.npy_bytes(values)).hexdigest() != sha256:
        return None, f"{name} is not the map that the record names"
    return values, ""


def _judge(
    record: Record,
    e: Explanation,
    i: int,
    difference: dict[str, float] | None,
    lost: str,
    changed: Sequence[Change],
    may_differ: Sequence[str],
    allowed: float,
    runs: int,
) -> tuple[Verdict, str]:
    """Bit-equal, within tolerance or different, in a sentence with its numbers; RefusalError where that cannot be told."""
    said = record.content
    same = _hash(e, i) == said["map"]["sha256"] and str(e.status[i]) == said["status"]
    start = f"record {record.number}, {said['method']} of {said['image']} ({said['target']['text']})"
    measured = "the map is bit-equal" if same else _in_words(difference, said, e)
    if lost:
        measured += f"; only its hash is left ({lost})"
    decisive = [change.what for change in changed if change.decides]
    if decisive:
        asked = f"different, as something else was asked: {', '.join(decisive)}"
        return "different", f"{start}: {asked}. Here {measured}."
    if same:
        return "bit-equal", f"{start}: {measured}."
    if lost and may_differ:
        raise RefusalError(
            f"{start}: its hash is another one, and that says nothing here: {measured}, and the last digits may differ "
            f"({may_differ[0]})."
        )
    limit = f"{allowed:.1e}" + (f", as far as rounding alone moves it here ({runs} runs)" if runs else "")
    close = difference is not None and difference["relative"] <= allowed and str(e.status[i]) == said["status"]
    if may_differ and close:
        return "within tolerance", f"{start}: equal within {limit}: {measured}."
    why = f"more than {limit}" if may_differ else "though it must be the same, bit by bit"
    return "different", f"{start}: different: {measured}, {why}."


def _in_words(difference: Mapping[str, Any] | None, said: Mapping[str, Any], e: Explanation) -> str:
    if difference is None:
        return f"the map has another hash, {said['grid']} cells then and {list(e.grid)} now"
    rank = difference["rank_correlation"]  # NaN where one of them is constant
    return (
        f"of {difference['n']} cells the largest difference is {difference['largest']:.2g}, {difference['relative']:.2g} of "
        f"the recorded map's largest absolute value, rank correlation {rank:.6f}"
    )


def _difference(then: NDArray[Any], now: NDArray[Any]) -> dict[str, float] | None:
    if then.shape != now.shape:
        return None
    largest, scale = float(np.abs(now - then).max()), float(np.abs(then).max())
    rank = rank_correlation(torch.from_numpy(then)[None], torch.from_numpy(now)[None])
    relative = largest / scale if scale > 0 else 0.0 if largest == 0 else float("inf")
    found: dict[str, float] = {"n": then.size, "largest": largest, "relative": relative}
    return found | {"rank_correlation": float(rank)}


def _hash(e: Explanation, i: int) -> str:
    return hashlib.sha256(runfolder.npy_bytes(e.raw[i].detach().cpu().numpy())).hexdigest()
