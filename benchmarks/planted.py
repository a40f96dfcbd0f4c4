"""The audit against planted truth: how many cues that a network uses it finds, and how many honest networks it accuses.

Resumable case by case: one JSON line each in --results; run it again to go on. Writes docs/benchmarks-planted.md.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from scipy import stats

import seewhy as sw
from planted_cases import LEARNED, NETWORKS, SHARES, USED, VARIANTS, Built, Case, build, cases
from planted_cues import KINDS
from planted_images import LABEL_NOISE, SCORE_NOISE

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-planted.md"
SEEDS = {"small64": 4, "small96": 2, "lite0": 2}  # data sets of each kind and strength
MARGIN = 0.1  # of the image: how far beside a cue the middle of the place named may lie
LARGEST = 0.4  # of the image: a larger place names none
OVERLAP = 0.2  # intersection over union, enough by itself
SHOWN_RIGHTLY = 2 / 3  # of the images said to show a pattern that moves
READS_AFTER_ALL = 0.5  # of the least effect that counts as use: a decoy network above it is no twin
Record = dict


def plan(networks, seeds: int | None, photos: list[str]) -> Iterator[Case]:
    """Every case, a seed of every network at a time: each cue, then one twin, clean and decoy by turns."""
    for seed in range(seeds or max(SEEDS[name] for name in networks)):
        for network in networks:
            if seed >= (seeds or SEEDS[network]):
                continue
            for place, folder in enumerate([None, *photos]):
                found = cases(seeds=(seed,), networks=(network,), photos=folder)
                for number in range(0, len(found), len(VARIANTS)):
                    yield found[number]
                    yield found[number + 1 + (number // len(VARIANTS) + seed + place) % 2]


def run_case(case: Case, keep: Path | None, *, audit: bool) -> Record:
    """Build one case, audit it with nothing told, and hold what was found against the truth."""
    begun = time.perf_counter()
    built = build(case)
    record = {"case": case.name, **asdict(case), "seconds_build": round(time.perf_counter() - begun, 1)}
    record |= {name: getattr(built, name).to_dict() for name in ("effect", "pasted", "removed")}
    record |= {"used": built.used, "quality": built.quality, "where": built.truth["where"]}
    record |= {"outputs": built.truth["outputs"], "torch": torch.__version__, "counts": counts(case, built)}
    if not (audit and record["counts"]):
        return record
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) if keep is None else keep / case.name.replace(" ", "-")
        try:
            report = sw.audit(built.model, built.dataset, out=out, anyway=True).to_dict()
        except sw.SeewhyError as error:
            return record | {"error": f"{type(error).__name__}: {error}"}
    confirmed = [one for one in report["findings"] if one["status"] == "confirmed"]
    slim = [{k: one.get(k) for k in ("kind", "name", "where", "outputs", "sentence")} for one in confirmed]
    record |= {"findings": slim, "tried": len(report["findings"]), "verdict": report["verdict"]}
    record |= {"named": [names_cue(one, built) for one in confirmed]}
    return record | {"seconds_audit": round(time.perf_counter() - begun, 1)}


def counts(case: Case, built: Built) -> bool:
    """A cue counts where the network provably uses it, a twin where it provably does not use it about half as much."""
    if case.variant == "decoy":
        least = USED["score" if built.model.task == "regression" else "class"]
        return abs(built.effect.value) < READS_AFTER_ALL * least
    return built.used or case.variant == "clean"


# -- the truth ----------------------------------------------------------------------------------------------------------


def names_cue(found: Record, built: Built) -> bool:
    """Whether a confirmed finding is the planted cue: kind, place (or whose images), and direction of the outputs."""
    truth = built.truth
    return found["kind"] in truth["kinds"] and right_place(found, built) and right_direction(found, built)


def right_place(found: Record, built: Built) -> bool:
    """Where the cue lies, for cues that lie somewhere; a pattern that moves: the images that show it."""
    where, true = found["where"], built.truth["where"]
    if true is not None:
        return where is not None and near(where, true)
    if found["kind"] == "whole_image":
        return True
    if "background" in built.truth["kinds"]:  # outside the object, which lies about the middle
        return where is None or max(abs(where[0] + where[2] - 1), abs(where[1] + where[3] - 1)) > 0.4
    marked = [built.truth["marked"][int(name.rpartition(" ")[2])] for name in found["images"]]
    return where is None and sum(marked) >= SHOWN_RIGHTLY * len(marked) > 0


def near(where: list[float], true: list[float]) -> bool:
    """The middle of the place named lies on the cue (a tenth of the image beside it at most), or both overlap enough.

    A frame is named by any place at the image's edge.
    """
    area = (where[2] - where[0]) * (where[3] - where[1])
    x, y = (where[0] + where[2]) / 2, (where[1] + where[3]) / 2
    if true == [0.0, 0.0, 1.0, 1.0]:
        return area <= LARGEST and min(x, y, 1 - x, 1 - y) <= 0.2
    width = max(0.0, min(where[2], true[2]) - max(where[0], true[0]))
    height = max(0.0, min(where[3], true[3]) - max(where[1], true[1]))
    union = area + (true[2] - true[0]) * (true[3] - true[1]) - width * height
    inside = true[0] - MARGIN <= x <= true[2] + MARGIN and true[1] - MARGIN <= y <= true[3] + MARGIN
    return (inside and area <= LARGEST) or width * height >= OVERLAP * union


def right_direction(found: Record, built: Built) -> bool:
    """Pasting raises the cue's output (of two classes: or lowers the other one); with no pasting, removing lowers it."""
    target = built.truth["outputs"][0]
    two = built.model.task == "multiclass" and len(built.model.labels) == 2
    for effect in found["effect"]:
        if effect["output"] != target and not two:
            continue
        sign = 1 if effect["output"] == target else -1
        change = effect["pasted"]["value"] if effect.get("pasted") else -effect["removed"]["value"]
        if sign * change > 0:
            return True
    return False


# -- the page -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Record]:
    """The records that there are, by case; a line that a kill cut off is left out, an error is tried again."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[record["case"]] = record
    return found


def share(hits: int, n: int) -> str:
    """A rate with its n and Clopper-Pearson interval (95 %)."""
    if not n:
        return "- (n = 0)"
    sure = stats.binomtest(hits, n).proportion_ci(method="exact")
    return f"{hits} of {n}: {100 * hits / n:.0f} % [{100 * sure.low:.0f}, {100 * sure.high:.0f}]"


def page(records: list[Record], planned: int) -> str:
    """The table, misses included, and how it came about."""
    audited = [r for r in records if r["counts"] and ("findings" in r or "error" in r)]
    cued = [r for r in audited if r["variant"] == "cue"]
    twins = [r for r in audited if r["variant"] != "cue" and "findings" in r]  # one that is refused proves nothing
    built = [r for r in records if r["variant"] == "cue"]
    seconds = sorted(r["seconds_audit"] for r in audited if "seconds_audit" in r)
    lines = [
        "# The audit against planted truth",
        "",
        f"Written by `benchmarks/planted.py` (seewhy {importlib.metadata.version('seewhy')}, torch {torch.__version__}).",
        "Networks really trained on photos, split by source photo, on which a cue goes with one answer; and twins: the",
        "same images without it (clean), or with it on as many images, whatever their answer (decoy). The audit is told",
        f"nothing. {len(records)} of the {planned} cases of the plan were run. Intervals: Clopper-Pearson, 95 %.",
        "",
        "| | audits | rate |",
        "|---|---|---|",
        f"| cues that the network uses, found and confirmed | {len(cued)} | {share(sum(map(hit, cued)), len(cued))} |",
        f"| ... with another confirmed finding beside | {len(cued)} | {share(sum(map(beside, cued)), len(cued))} |",
    ]
    for name in ("clean", "decoy"):
        own = [r for r in twins if r["variant"] == name]
        lines.append(f"| {name} twins accused | {len(own)} | {share(sum(map(accused, own)), len(own))} |")
    lines += [f"| all twins accused | {len(twins)} | {share(sum(map(accused, twins)), len(twins))} |", ""]
    for title, key, values in (("kind", "kind", KINDS), ("network", "network", tuple(NETWORKS))):
        lines += [
            f"## By {title}",
            "",
            f"| {title} | used, of those built | found | twins accused |",
            "|---|---|---|---|",
        ]
        for value in values:
            of = [[r for r in part if r[key] == value] for part in (built, cued, twins)]
            used = f"{sum(r['used'] for r in of[0])} of {len(of[0])}"
            found, wrong = (share(sum(map(f, part)), len(part)) for f, part in ((hit, of[1]), (accused, of[2])))
            lines.append(f"| {value} | {used} | {found} | {wrong} |")
        lines.append("")
    for title, chosen in (
        ("Missed", [r for r in cued if not hit(r)]),
        ("Accused", [r for r in twins if accused(r)]),
        ("Could not be audited", [r for r in audited if "error" in r]),
    ):
        lines += [f"## {title}", "", *([told(r) for r in chosen] or ["None."]), ""]
    took = f"{seconds[len(seconds) // 2]:.0f} s, at most {seconds[-1]:.0f} s" if seconds else "not measured"
    return "\n".join([*lines, *rules(took)]) + "\n"


def hit(record: Record) -> bool:
    """The cue was found, confirmed and named rightly."""
    return any(record.get("named", []))


def beside(record: Record) -> bool:
    """Something else was confirmed too."""
    return not all(record.get("named", []))


def accused(record: Record) -> bool:
    """A finding was confirmed."""
    return bool(record.get("findings"))


def told(record: Record) -> str:
    """A case by name, how strongly its network uses the cue, and what the audit said."""
    effect = record["effect"]
    size = f"{effect['value']:.2f} [{effect['low']:.2f}, {effect['high']:.2f}]"
    said = record.get("error") or "; ".join(f"{f['name']} ({f['kind']})" for f in record["findings"])
    return f"- {record['case']}: effect {size}; confirmed: {said or 'nothing'}"


def rules(took: str) -> list[str]:
    """How cases are made and judged."""
    return [
        "## How it is measured",
        "",
        f"- Images: {', '.join(f'{n} learned from for {name}' for name, n in LEARNED.items())}; photos from the wheels of",
        "  scikit-image, scikit-learn and matplotlib, half of them learned from, half held out; `group` is the quarter of a",
        "  photo. Tasks: which shape was cut out (two or three classes), how large it is (0 to 100); with `--photos`, animal",
        "  or thing, CIFAR-10 classes.",
        f"- Labels are recorded with errors: {100 * LABEL_NOISE:.0f} % wrong classes, {SCORE_NOISE:.0f} points standard",
        "  deviation of a score. The cue lies on "
        + " and ".join(f"{100 * there:.0f} % ({name})" for name, (there, _) in SHARES.items()),
        "  of the images where its answer was recorded (of a score: above the median) and on "
        + " and ".join(f"{100 * elsewhere:.0f} %" for _, elsewhere in SHARES.values()),
        "  of the others; a decoy on as many, evenly over the answers.",
        "- Use: the same held-out image with and without the cue, over all of them, those shown without and those shown",
        f"  with it: all three intervals above 0, and a mean of at least {USED['class']} in probability or {USED['score']}",
        "  standard deviations of the recorded score. Other cue cases do not count, nor do decoy networks that move half",
        "  as much.",
        "- Found: a confirmed finding of the right kind (marks: local pattern or place; texture: background, or a pattern or",
        "  place beside the middle; else whole image) and direction (putting it in raises the cue's answer); its middle at",
        f"  most {100 * MARGIN:.0f} % of the image beside the cue and its area at most {100 * LARGEST:.0f} %, or overlap",
        f"  (intersection over union) of {OVERLAP}; a mark that moves: no place, and two thirds of the images said to show",
        "  it do. A twin is accused by any confirmed finding.",
        "- Audits run with their defaults, but `anyway=True`: a network of a few hundred images with wrong labels can be so",
        "  near chance that an audit is refused, which would hide what it would have said.",
        f"- An audit took {took} (median first).",
    ]


def main() -> None:
    """Run what is missing; the page is written after each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("planted-results.jsonl"))
    parser.add_argument("--photos", nargs="*", default=[], help="folders of photos beside those of the wheels")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, help="data sets of each kind and strength")
    parser.add_argument("--build-only", action="store_true", help="measure the use of the cues, audit nothing")
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    absent = [folder for folder in given.photos if not Path(folder).is_dir()]
    for folder in absent:
        print(f"{folder} is absent: its cases are left out", file=sys.stderr)
    photos = [folder for folder in given.photos if folder not in absent]
    torch.set_num_threads(1)
    done = read(given.results)
    listed = [case for case in plan(given.networks, given.seeds, photos) if case.kind in given.kinds]
    for number, case in enumerate(listed):
        known = done.get(case.name)
        if known and "error" not in known and (given.build_only or "findings" in known or not known["counts"]):
            continue
        record = run_case(case, given.keep, audit=not given.build_only)
        done[case.name] = record
        with given.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{number + 1} of {len(listed)}: {said(record)}", file=sys.stderr, flush=True)
        if not given.build_only:
            given.page.write_text(page([done[c.name] for c in listed if c.name in done], len(listed)))


def said(record: Record) -> str:
    """A line of progress."""
    effect = record["effect"]
    found = (
        "" if "findings" not in record else f", confirmed {[f['name'] for f in record['findings']]} {record['named']}"
    )
    took = record["seconds_build"] + record.get("seconds_audit", 0)
    return (
        f"{record['case']}: effect {effect['value']:.2f} [{effect['low']:.2f}, {effect['high']:.2f}], counts "
        f"{record['counts']}{found}{record.get('error', '')}, {took:.0f} s"
    )


if __name__ == "__main__":
    main()
