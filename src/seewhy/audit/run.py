"""The audit: from a model and a labelled data set to findings, a verdict and a page; every number goes through the ledger."""

import contextlib
import importlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import runfolder
from seewhy.audit.association import Labels, labels_of
from seewhy.audit.background import background_candidates
from seewhy.audit.candidate import Candidate
from seewhy.audit.confirm import Held, Trial, correct, explained_away, try_candidate
from seewhy.audit.examined import Examined, examine, maps_of
from seewhy.audit.findings import detectable, facts_of_metadata, finding_of, merged
from seewhy.audit.gate import judge, read_report
from seewhy.audit.local import mark_candidates
from seewhy.audit.marks import biharmonic
from seewhy.audit.objects import Marked, outside_fact, outside_record, read_marked
from seewhy.audit.places import place_candidates
from seewhy.audit.policy import Policy, read_policy, refuse_expired, write_policy
from seewhy.audit.records import write_cost, write_records, write_verdict
from seewhy.audit.review import review_queue
from seewhy.audit.setup import check_setup
from seewhy.audit.stream import Progress, Row, label_name, predicted
from seewhy.audit.strips import keep_strips, write_findings
from seewhy.audit.wholes import whole_candidates
from seewhy.data.dataset import DataSet, read_dataset
from seewhy.data.kinds import KIND_OF_TASK
from seewhy.data.labels import labels_for
from seewhy.errors import RefusalError, UsageError, whole_number
from seewhy.explanation import machine, versions
from seewhy.identity import digest, identity
from seewhy.ledger import Ledger, open_ledger
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, find_method
from seewhy.trust.card import card_of, prepared
from seewhy.wrapping import bare

METHODS = ("grad_cam", "occlusion")
CHECKS, CHECKED = ("model_randomization", "completeness"), 9  # of the first method, on so many images
STAGES = (("marks",), ("whole-image cues", "surroundings"), ("places",))
FEWEST = 16  # readable images
SCHEMA = 1
Record = dict[str, Any]
Asked = dict[str, dict[str, Any]]  # check -> its parameters


@dataclass(frozen=True)
class Audit:
    """What an audit found: the verdict with its reasons, the findings, and where everything is written."""

    report: Record  # findings.json
    folder: Path
    page: Path
    seconds: float

    @property
    def verdict(self) -> str:
        """pass, blocked, inconclusive or incomplete."""
        return str(self.report["verdict"])

    @property
    def findings(self) -> list[Record]:
        """Those that were confirmed, refuted or could not be tested, the confirmed first."""
        return list(self.report["findings"])

    def to_dict(self) -> Record:
        """Plain JSON values: what findings.json holds."""
        return self.report

    def files(self) -> list[Path]:
        """Everything that was written."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def __str__(self) -> str:
        lines = [self.verdict.upper(), *(f"  {reason}" for reason in self.report["reasons"])]
        lines += [f"{one['status']}: {one['sentence']}" for one in self.findings]
        return "\n".join([*lines, str(self.page)])

    __repr__ = __str__


def audit(
    model: VisionModel | nn.Module,
    dataset: Any,
    out: str | Path = "seewhy-audit",
    policy: str | Path | None = None,
    *,
    methods: Sequence[str] = METHODS,
    boxes: Any = None,
    against: str | Path | None = None,
    explained: int = 1000,
    per_class: int = 40,
    anyway: bool = False,
    pictures: bool = True,
    checks: Sequence[str] = CHECKS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Which patterns a model relies on that it should not, on a labelled data set: found, confirmed by experiment, judged.

    dataset: whatever `read_dataset` reads: a folder with a sub-folder per class, a table, a torch Dataset or a list of
    (image, label[, {"group": ...}]). Every image is predicted, at most `explained` are searched; of these `per_class` right
    and as many wrong ones of each class (of a score: of each quarter) are explained by `methods`. What is found on one half
    of their groups is tested on the other half. boxes: what people marked as the object, files that `read_boxes` reads or
    what it gave: then the surroundings are all else, and marks, places and maps say how much of them lies outside. policy:
    seewhy.toml; None: the shipped one, blocking what is confirmed. against: the folder of an earlier audit; only what is new
    blocks. out: a run folder; the same call goes on where it stopped. anyway: go on where labels or normalization look
    wrong. pictures=False: no picture is written. checks: what the first method is checked by, on nine of the images, for the
    trust card of the report.
    RefusalError for a network without one answer per image, and where the set-up check warns; UsageError for what cannot be
    meant; MissingExtraError, before any work, without scikit-image.
    """
    begun, tell = time.perf_counter(), progress or (lambda _what, _done, _all: None)
    model = model if isinstance(model, VisionModel) else bare(model)
    rules, infos = read_policy(policy), _methods(methods, per_class, explained, seed)
    _refuse(model, rules)
    asked, before = _asked(infos[0], checks, seed), None if against is None else read_report(against)
    data, truth = labels_for(model, read_dataset(dataset, kind=KIND_OF_TASK[model.task]))
    marked = read_marked(boxes, data, model)
    folder = runfolder.open_folder(out)
    write_policy(rules, folder)
    kept = _kept_on_interrupt(model, data, rules, folder, pictures=pictures)
    with kept, torch.inference_mode(False), open_ledger(folder) as ledger:
        spent = (model.forward_rows, model.gradient_rows)
        ledger.append("run", *_run_record(model, data, methods, per_class, explained, seed))
        rows, skipped = predicted(model, data, truth, ledger, tell)
        _refuse_few(rows, skipped)
        check_setup(model, data, truth, rows, _data_id(data), ledger, seed, anyway=anyway)
        examined = examine(model, data, truth, rows, per_class, explained, ledger, seed, marked)
        skipped += examined.skipped
        names = output_names(model, examined.held.clean.shape[1])
        maps = maps_of(model, examined, infos, ledger, data.root, seed, tell)
        trials, notes = _tried(model, examined, maps, names, seed, tell)
        found, trial_of = _found(model, data, examined, trials, names, notes)
        report = {
            **_about(model, data),
            "n_images": len(rows),
            "n_skipped": len(skipped),
            **found,
            "review_queue": review_queue(model, examined, maps, data.kind, ledger),
            **_objects(examined, maps, marked),
            "checks": _checked(model, examined, infos[0], asked, ledger, seed, tell),
            "skipped": skipped,
        }
        report = judge(report, rules, before, date.today())
        keep_strips(model, report, trial_of, names, examined.paths, ledger, pictures=pictures)
        write_findings(folder, report, trial_of, data, examined, pictures=pictures)
        write_records(ledger, report, rows, examined, maps, data)
        write_verdict(ledger, report)
        write_cost(ledger, model.forward_rows - spent[0], model.gradient_rows - spent[1], time.perf_counter() - begun)
    return Audit(runfolder.plain(report), folder, _page(folder, report, pictures=pictures), time.perf_counter() - begun)


@contextlib.contextmanager
def _kept_on_interrupt(
    model: VisionModel, data: DataSet, rules: Policy, folder: Path, *, pictures: bool
) -> Iterator[None]:
    """After Ctrl-C what there is, as an audit that is incomplete; the same call goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        with open_ledger(folder) as ledger:
            done = {kind: len(ledger.keys(kind)) for kind in ("prediction", "explanation")}
            skipped = [record.content for record in ledger.read("skip")]
        report = {
            **_about(model, data),
            "n_images": done["prediction"],
            "n_examined": 0,
            "n_explained": 0,
            "n_skipped": len(skipped),
            "findings": [],
            "detectable_effect": {},
            "not_tested": ["Everything: the audit was interrupted."],
            "review_queue": [],
            "checks": [],
            "skipped": skipped,
            "interrupted": f"interrupted after {done['prediction']} of {len(data)} images were predicted and "
            f"{done['explanation']} maps made",
        }
        _page(folder, judge(report, rules, None, date.today()), pictures=pictures)
        raise


def _page(folder: Path, report: Record, *, pictures: bool) -> Path:
    """findings.json, and the page, rendered by the layer above, which is resolved when called, like every public name."""
    runfolder.write_file(folder / "findings.json", json.dumps(runfolder.plain(report), indent=1).encode())
    page: Path = importlib.import_module("seewhy.faces.report").report(folder, pictures=pictures)
    return page.resolve()


def _methods(names: Sequence[str], per_class: int, explained: int, seed: int) -> list[MethodInfo]:
    """The methods that are asked for; UsageError for these and for numbers that cannot be meant."""
    if isinstance(names, str) or not names:
        raise UsageError(f"methods are names of one or more methods; got {names!r}. Default: {', '.join(METHODS)}.")
    whole_number("per_class", per_class, at_least=1)
    whole_number("explained", explained, at_least=1)
    whole_number("seed", seed, at_least=0)
    return [find_method(name) for name in names]


def _asked(info: MethodInfo, checks: Sequence[str], seed: int) -> Asked:
    if "localization" in checks:
        raise UsageError(
            "the check localization is no part of an audit's card: sw.localization_report holds maps against boxes."
        )
    return prepared(info, list(checks), seed, None)


def _refuse(model: VisionModel, rules: Policy) -> None:
    """RefusalError, MissingExtraError and UsageError for what makes no audit, before any work."""
    if model.task not in KIND_OF_TASK:
        raise RefusalError(f"an audit needs one answer per image; this is task={model.task!r}.")
    biharmonic()
    refuse_expired(rules, date.today())


def _refuse_few(rows: Sequence[Row], skipped: Sequence[Record]) -> None:
    if len(rows) < FEWEST:
        first = f" The first: {skipped[0]['path']}: {skipped[0]['reason']}." if skipped else ""
        raise UsageError(
            f"{len(rows)} images can be read, {len(skipped)} were skipped: an audit needs {FEWEST}.{first}"
        )


def output_names(model: VisionModel, k: int) -> list[str]:
    """The names of a model's outputs: its classes, of a single output the positive class or the score."""
    if model.task == "regression":
        names = list(model.labels or [])
        return names if len(names) == k else ["the score"] if k == 1 else [f"score {i}" for i in range(k)]
    if k == 1:
        return [label_name(model, 1) if model.labels is None or len(model.labels) > 1 else model.labels[0]]
    return [label_name(model, i) for i in range(k)]


def _run_record(
    model: VisionModel, data: DataSet, methods: Sequence[str], per_class: int, explained: int, seed: int
) -> tuple[str, Record]:
    settings = {"methods": list(methods), "per_class": per_class, "explained": explained, "seed": seed}
    content = {"model": model.name, "model_sha256": model.fingerprint(), "data": _data_id(data), "settings": settings}
    about = {"versions": versions(), "machine": machine(model.device)}
    return identity(content), {**content, **about}


def _about(model: VisionModel, data: DataSet) -> Record:
    return {"schema": SCHEMA, "model": model.fingerprint(), "data": _data_id(data)}


def _data_id(data: DataSet) -> str:
    return identity([[sample.name, str(sample.label)] for sample in data.samples])


def _tried(
    model: VisionModel, e: Examined, maps: dict[str, Tensor], names: Sequence[str], seed: int, tell: Progress
) -> tuple[list[Trial], list[str]]:
    """Every candidate with what came of it, and what could not be looked for.

    Stage by stage, each on images from which what was confirmed before is taken away, as a place or the surroundings carry
    every mark that lies in them. Whole-image cues and surroundings imitate each other: what moves the model more goes first.
    """
    kind, finding, held = KIND_OF_TASK[model.task], ~e.held.confirming, e.held
    maps = {name: _of_all(values, e) for name, values in maps.items()}
    names = [label_name(model, k) for k in range(int(e.truth.max()) + 1)] if kind == "class" else list(names)
    labels = labels_of(e.truth, kind, names, held.clean.shape[1])
    trials: list[Trial] = []
    notes: list[str] = []
    new: list[Trial] = []

    def tried(what: str) -> list[Trial]:
        tell(f"looking for {what}", 0, 1)
        found, said = _candidates(what, held, maps, finding, labels, seed, e.objects)
        notes.extend(said)
        done = []
        for number, candidate in enumerate(found):
            tell(f"confirming {what}", number, len(found))
            done.append(try_candidate(held, candidate, seed))
        correct([*trials, *done])
        return done

    for stage in STAGES:
        held = explained_away(held, new)
        of_kind = {what: tried(what) for what in stage}
        strength = {what: max((one.strength() for one in done), default=0.0) for what, done in of_kind.items()}
        for place, what in enumerate(sorted(stage, key=lambda name: -strength[name])):
            if place and max(strength.values()):
                held = explained_away(held, new)
                of_kind[what] = tried(what)
            new = of_kind[what]
            trials += new
            correct(trials)
    return trials, list(dict.fromkeys(notes))


def _of_all(maps: Tensor, e: Examined) -> Tensor:
    """Maps (M, *grid) of the explained images among all examined ones (N, *grid); NaN for the others."""
    every = torch.full((len(e.rows), *maps.shape[1:]), torch.nan)
    every[e.explained] = maps
    return every


def _candidates(
    what: str,
    held: Held,
    maps: dict[str, Tensor],
    finding: Tensor,
    labels: Labels,
    seed: int,
    objects: Tensor | None,
) -> tuple[list[Candidate], list[str]]:
    if what == "marks":
        return mark_candidates(held.images, held.scenes, finding, maps, held.say, seed)
    if not labels.names:
        return [], [
            "Whole-image cues, places and surroundings: no class has six examined images, or there are more than 40 such "
            "classes."
        ]
    if what == "surroundings":
        return background_candidates(held.images, held.scenes, finding, labels, seed, objects), []
    search = {"whole-image cues": whole_candidates, "places": place_candidates}
    return search[what](held.images, held.scenes, finding, labels, seed), []


def _checked(
    model: VisionModel, e: Examined, info: MethodInfo, asked: Asked, ledger: Ledger, seed: int, tell: Progress
) -> list[Record]:
    """The trust card of a method on some of the images: its rows, from the ledger where they are known."""
    if not asked:
        return []
    key = identity([model.fingerprint(), info.name, digest(e.held.images[:CHECKED]), seed])
    known = [ledger.find("check", f"{key} {name}") for name in asked]
    if None in known:
        tell(f"checking {info.title}", 0, 1)
        x = e.held.images[:CHECKED].float() / 255
        card = card_of(model, x, e.shown[:CHECKED], info, None, None, seed, {}, asked, None, None)
        rows = [
            {"id": f"{key} {name}", "card": card.about, **row}
            for name, row in zip(asked, card.to_dict()["checks"], strict=True)
        ]
        known = list(ledger.append_all("check", [(row["id"], runfolder.plain(row)) for row in rows]))
    return [record.content for record in known if record is not None]


def _found(
    model: VisionModel,
    data: DataSet,
    e: Examined,
    trials: Sequence[Trial],
    names: Sequence[str],
    notes: Sequence[str],
) -> tuple[Record, dict[str, Trial]]:
    """On how many images what was found, what these would have shown, what was not looked for; by id a finding's trial."""
    metadata = [data.samples[row.index].metadata for row in e.rows]
    found = []
    for trial in trials:
        shows = trial.candidate.shows
        first = int(shows.nonzero()[0]) if bool(shows.any()) else 0
        facts = [*facts_of_metadata(shows, e.held.scenes, metadata), *outside_fact(trial.candidate, e.objects)]
        found.append((finding_of(model, trial, names, e.paths, e.shown[first].geometry, facts), trial))
    kept = merged(found)
    report = {
        "n_examined": len(e.rows),
        "n_explained": len(e.explained),
        "findings": [one for one, _ in kept],
        "detectable_effect": detectable(trials, names, "score" if model.task == "regression" else "logit"),
        "not_tested": [*notes, *_not_tested(data)],
    }
    return report, {one["id"]: trial for one, trial in kept}


def _objects(e: Examined, maps: dict[str, Tensor], marked: Marked | None) -> Record:
    """How much of the explained images' maps lies outside of what people marked; nothing where nobody did."""
    if marked is None or e.objects is None:
        return {}
    scenes = e.held.scenes[e.explained]
    return {"objects": outside_record(maps, e.objects[e.explained], scenes, marked.unused)}


def _not_tested(data: DataSet) -> list[str]:
    said = [
        "Cues that none of these images shows, or fewer than three groups of the searched half.",
        "Marks smaller than about a thirtieth of the image's side, and nearly transparent ones that move.",
        "The photo's own size and aspect ratio, which the model does not see.",
    ]
    if len({str(sample.label) for sample in data.samples}) < 2:
        said.append(f"Cues that go with a label: all {len(data)} images have the same, {data.samples[0].label}.")
    if not any(sample.group for sample in data.samples):
        said.append(
            "Whether images share a patient, a session or a scene: without a group column each counts for itself."
        )
    return said
