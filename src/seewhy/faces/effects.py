"""Effects with their intervals as what a page shows: numbers in words, and where each stands on a common line."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seewhy.audit.marks import words_of_place

UNITS = {"logit": "logits", "probability": "probability", "score": "points of score"}
DONE = {  # to images, in the order in which they are shown
    "pasted": "put onto images without it",
    "control": "its control put there",
    "removed": "taken from images with it",
}
AIR = 0.05  # of the line, at either end
Record = Mapping[str, Any]


def signed(value: float | None) -> str:
    """'+0.52': three digits with the sign of a change."""
    if value is None or not math.isfinite(value):
        return "none"
    return "0" if value == 0 else f"{value:+.3g}"


def change(numbers: Record | None) -> str:
    """'+0.52 [+0.4, +0.6]': a mean change and its 95 % interval."""
    if numbers is None:
        return "not measured"
    if numbers.get("low") is None or numbers.get("high") is None:
        return signed(numbers["value"])
    return f"{signed(numbers['value'])} [{signed(numbers['low'])}, {signed(numbers['high'])}]"


def unit_words(unit: str) -> str:
    """What a unit is called."""
    return UNITS.get(unit, unit)


def effect(found: Record) -> dict[str, Any]:
    """One effect of a finding: a line per operation, what nothing in particular would do, and the zero, on one scale."""
    done = {what: found[what] for what in DONE if found.get(what)}
    chance = (found.get("unrelated") or {}).get("largest")
    line = Line([0, *_ends(done.values()), *([] if chance is None else [-chance, chance])])
    return {
        "output": found["output"],
        "unit": unit_words(found["unit"]),
        "lines": [
            {
                "what": DONE[what],
                "said": change(numbers),
                "n": numbers.get("n", found.get("n")),
                "control": what == "control",
                "bar": line.bar(numbers),
            }
            for what, numbers in done.items()
        ],
        "zero": line.at(0),
        "chance": None if chance is None else line.bar({"value": 0, "low": -chance, "high": chance}),
        "notes": _notes(found),
    }


def _notes(found: Record) -> list[str]:
    notes = []
    unrelated, fills = found.get("unrelated") or {}, found.get("fills") or {}
    if unrelated.get("largest") is not None:
        notes.append(
            f"Gray: what {unrelated['pieces']} controls with nothing of it reach at most, {unrelated['largest']:.3g}."
        )
    if len(fills) > 1:
        said = "; ".join(f"{name.replace('_', ' ')} {change(numbers)}" for name, numbers in fills.items())
        notes.append(f"Taken away, by what fills the gap: {said}.")
    return notes


def _ends(several: Iterable[Record]) -> list[float]:
    return [n[end] for n in several for end in ("value", "low", "high") if n.get(end) is not None]


class Line:
    """A number line from the smallest to the largest of some values, as percent of its width."""

    def __init__(self, values: Sequence[float], low: float | None = None, high: float | None = None) -> None:
        least, most = (min(values) if low is None else low), (max(values) if high is None else high)
        air = AIR * (most - least) if low is None else 0.0
        self.low, self.high = least - air, most + air

    def at(self, value: float) -> float:
        """Where a value stands, 0 to 100."""
        width = self.high - self.low
        return round(100 * min(1.0, max(0.0, (value - self.low) / width)), 2) if width > 0 else 50.0

    def bar(self, numbers: Record | None) -> dict[str, float] | None:
        """Where an interval begins, how wide it is, and where its mean stands; None where there is no number."""
        if numbers is None or numbers.get("value") is None:
            return None
        middle = self.at(numbers["value"])
        ends = [middle if numbers.get(end) is None else self.at(numbers[end]) for end in ("low", "high")]
        return {"left": ends[0], "width": round(ends[1] - ends[0], 2), "middle": middle}


def place(where: Sequence[float] | None, kind: str) -> str:
    """Where a pattern lies, in words: 'the lower right corner, 22 % x 8 % of the photo'."""
    if where is None:
        return "everywhere in the image" if kind == "whole_image" else "at places that differ"
    x0, y0, x1, y1 = where
    return f"{words_of_place((y0, x0, y1, x1), (1, 1))}, {100 * (x1 - x0):.0f} % x {100 * (y1 - y0):.0f} % of the photo"
