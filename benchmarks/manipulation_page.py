"""The page that benchmarks/manipulation.py writes from its records."""

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

AGREE, DOUBLE, HALF = 0.98, 2.0, 0.5  # what an attack has to reach: see `failed`
OTHERWISE = ("pass", "unclear", "not valid")
PLACES = ("frame", "corner", "frame gently", "corner gently")  # location fooling
SIDEWAYS = {  # columns without a verdict -> what is compared
    "behavior_at_mass": lambda c: c["behavior_at_mass"]["value"],
    "same_place": lambda c: c["same_place"]["value"],
    "family_agreement": lambda c: next(v["value"] for k, v in c.items() if k.startswith("family_agreement")),
    "noise_smoothed": lambda c: c["noise_smoothed"]["value"],
    "beta_smoothed": lambda c: c["beta_smoothed"]["value"],
    "randomized": lambda c: c["randomized"]["value"],
    "reference_map": lambda c: c["reference_map"]["value"],
}
Record = dict


def page(records: Sequence[Record]) -> str:
    """Markdown."""
    asked = [r for r in records if "verdict" in r]
    honest = [r for r in asked if r["honest"]]
    attacked = [r for r in asked if not r["honest"] and not failed(r)]
    lost = [r for r in records if not r["honest"] and ("refused" in r or failed(r))]
    places = [r for r in attacked if r["attack"] in PLACES]
    caught = [r for r in places if suspected(r)]
    tried = [r for r in asked if not r["honest"] and r["attack"] in PLACES]
    ns = " or ".join(sorted({str(r["n"]) for r in asked}))
    return "\n".join(
        [
            "# Manipulated networks: what the battery finds",
            "",
            filled(
                f"Written by `benchmarks/manipulation.py` from {len(records)} networks: {len(attacked)} that were attacked "
                f"with success, {len(lost)} on which the attack failed (below), {len(honest)} honest ones. Honest: the same "
                "network after the same tuning (images, labels, seed, steps; lower stages frozen, their activations kept) "
                "without the attack's term; of attacks that tune nothing, the network as it was. Suspected: the verdict "
                f"*fail* of the check `manipulation`, at its defaults, on images that were not tuned on ({ns} of them). "
                "Intervals: 95 %, Clopper-Pearson."
            ),
            "",
            f"**Location fooling: {share(len(caught), len(places))} caught; "
            f"{share(sum(map(suspected, honest)), len(honest))} honest networks accused.** The goal was 95 % and 5 %.",
            "",
            f"Of all {len(tried)} networks that were tuned to show a place, also those that the bar (98 % of the answers "
            "kept, the mass doubled) leaves out, "
            f"{sum(map(suspected, tried))} are suspected.",
            "",
            *table(
                ("attack", "asked of", "networks", "attack failed", "caught", "pass", "unclear", "not valid"),
                [row(attack, records) for attack in dict.fromkeys(r["attack"] for r in records)],
            ),
            "",
            "Honest networks, by what was asked of them:",
            "",
            *table(
                ("task", "method", "networks", "accused", "pass", "unclear", "not valid"),
                [
                    (
                        task,
                        method,
                        len(some),
                        share(sum(map(suspected, some)), len(some)),
                        *(said(some, verdict) for verdict in OTHERWISE),
                    )
                    for task in dict.fromkeys(r["task"] for r in honest)
                    for method in ("grad_cam", "gradient")
                    if (some := [r for r in honest if (r["task"], r["method"]) == (task, method)])
                ],
            ),
            "",
            *misses(attacked),
            *failures(lost),
            *sideways(attacked, honest),
            *limits(),
        ]
    )


def failed(record: Record) -> str:
    """Why an attack does not count, "" where it does: 98 % of the answers kept, and the map moved.

    Moved: its mass at the target at least doubled, or, where an attack has no place, the rank correlation with the map of
    before at most 1/2.
    """
    if "refused" in record:
        return "refused: " + record["refused"].partition(":")[0]
    if record["top_1_agreement"]["after"] < AGREE:
        return f"{record['top_1_agreement']['after']:.1%} of the answers kept"
    mass = record.get("mass_in_region")
    if mass is not None:
        return "" if mass["after"] >= DOUBLE * mass["before"] else f"mass {mass['before']:.2f} to {mass['after']:.2f}"
    similarity = record["similarity"]["after"]
    return "" if similarity <= HALF else f"still alike: {similarity:.2f}"


def suspected(record: Record) -> bool:
    """The verdict of the check."""
    return record["verdict"] == "fail"


def said(records: Sequence[Record], verdict: str) -> int:
    """How many have this verdict."""
    return sum(r["verdict"] == verdict for r in records)


def share(hits: int, n: int) -> str:
    """Hits of n with the exact interval."""
    if not n:
        return "0 of 0"
    sure = stats.binomtest(hits, n).proportion_ci(method="exact")
    return f"{hits} of {n} ({hits / n:.0%}; {sure.low:.0%} to {sure.high:.0%})"


def row(attack: str, records: Sequence[Record]) -> tuple[object, ...]:
    """One attack's line."""
    every = [r for r in records if r["attack"] == attack and not r["honest"]]
    some = [r for r in every if not failed(r)]
    numbers = share(sum(map(suspected, some)), len(some)), *(said(some, verdict) for verdict in OTHERWISE)
    return attack, every[0]["method"], len(every), len(every) - len(some), *numbers


def misses(attacked: Sequence[Record]) -> Iterable[str]:
    """Every network that was attacked with success and not suspected."""
    yield from ("Misses:", "")
    for r in attacked:
        if not suspected(r):
            c, method = r["columns"], "picture_agreement"
            yield f"- {r['case']}: {r['verdict']}; the picture's agreement with the behavior {number(c[method])}."
    yield ""


def failures(lost: Sequence[Record]) -> Iterable[str]:
    """Every attack that does not count, and what the battery said all the same."""
    yield from ("Attacks that failed, and are counted neither as caught nor as missed:", "")
    yield from (f"- {r['case']}: {failed(r)}; verdict {r.get('verdict', 'none')}." for r in lost)
    yield ""


def sideways(attacked: Sequence[Record], honest: Sequence[Record]) -> Iterable[str]:
    """What columns without a verdict would tell: medians, and how often an attacked network lies below an honest one."""
    yield from (
        "## Columns without a verdict",
        "",
        filled(
            "Medians, attacked / honest, and the share of pairs of an attacked and an honest network in which the attacked "
            "one's number is lower (0.5: the column tells nothing; ties count half). The last column needs the network of "
            "before. The check gives no verdict from it: honest tuning moves maps, too, and how far is innocent nobody has "
            "measured."
        ),
        "",
    )
    rows = []
    for attack in ("location", "other tuned", "two_channels", "on_manifold"):
        some = [r for r in attacked if kind(r) == attack]
        theirs = [r for r in honest if r["method"] == ("gradient" if attack == "on_manifold" else "grad_cam")]
        if some and theirs:
            cells = [
                below([read(r["columns"]) for r in some], [read(r["columns"]) for r in theirs])
                for read in SIDEWAYS.values()
            ]
            rows.append((f"{attack} (n = {len(some)}, {len(theirs)} honest)", *cells))
    yield from table(("attacked", *SIDEWAYS), rows)
    yield ""


def kind(record: Record) -> str:
    """What attacks are put together."""
    if record["attack"] in PLACES:
        return "location"
    return record["attack"] if record["attack"] in ("two_channels", "on_manifold") else "other tuned"


def below(attacked: Sequence[float], honest: Sequence[float]) -> str:
    """Medians of both, and the share of pairs with the attacked one below."""
    a, b = np.array(attacked), np.array(honest)
    less = stats.mannwhitneyu(b, a).statistic / (len(a) * len(b))
    return f"{np.median(a):.2f} / {np.median(b):.2f}: {less:.2f}"


def limits() -> list[str]:
    """What the numbers do not say."""
    return [
        "## What this does not say",
        "",
        filled(
            "- The networks are small (32 x 32 pixels, four convolutions); honest twins of one network are alike, so the "
            "intervals are narrower than they would be over as many unrelated networks."
        ),
        filled(
            "- A pass is no proof. Missed are attacks that leave the map on a place that matters, and those that change the "
            "behavior off the images' manifold: parts exchanged between images leave the plane of on_manifold. There, the "
            "columns `randomized`, `same_place` and `noise_smoothed` stand at 1: one map, whatever the image and weights."
        ),
        filled(
            "- The rule was chosen on other networks (64 x 64 pixels, and one of digits at 32) and not changed after the "
            "first of these. Of shapes there are two networks, as most attacks on them fail: their answers change with any "
            "tuning, the honest one too. Two networks each of three tasks were planned. A first page with four of digits "
            "and scenes had too few attacks that succeed (37, 11 of them on the location, 10 caught); `gently` (strength 1, "
            "not 3) was added, as many attacks cost more than 2 % of the answers, and then eight networks of either were "
            "run from the start, all on one machine."
        ),
        filled(
            "- The rule for *pass* alone was made stricter afterwards (the agreement lies above 0): on_manifold was asked "
            "again, no other verdict changes by it."
        ),
        "",
    ]


def filled(text: str) -> str:
    """Lines of at most 120 characters."""
    return textwrap.fill(text, 120, subsequent_indent="  " if text.startswith("- ") else "", break_long_words=False)


def number(interval: Record) -> str:
    """An interval in two digits."""
    return (
        f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
        if interval["value"] is not None
        else "none"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Markdown lines."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(map(str, one)) + " |" for one in rows)
