"""Curves with their intervals as a small SVG picture that takes its colors from the page."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 270, 62, 12, 12, 74
COLORS, PATTERNS = 6, 3  # of lines, in style.css: sw-line-0, ..., sw-line-control-0, ...
MOST_NAMES = 12  # under the axis
Curve = Mapping[str, Any]


def plot(curves: Sequence[Curve]) -> str:
    """Curves over the same x, (name, x, points with value, low, high): lines, bands, axes with numbers, a legend.

    Controls are gray and dashed. x are numbers, or names, which stand at equal distances. A point without a value is a gap.
    """
    x = _places(curves)
    values = [v for c in curves for p in c["points"] for v in (p["value"], p["low"], p["high"]) if v is not None]
    low, high = _range(values)
    names = curves[0]["x"]

    def at(place: float, value: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * place,
            TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low),
        )

    parts = [_axis(low, high, at, str(curves[0]["y_name"]).replace("_", " "))]
    parts += _names(names, x[0], at)
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(str(curves[0]["x_name"]))}</text>')
    for curve, places, (kind, _) in zip(curves, x, legend(curves), strict=True):
        parts.append(_line(curve["points"], places, at, kind))
    title = escape(f"{curves[0]['y_name']} over {curves[0]['x_name']}")
    body = "".join(parts)
    return f'<svg class="sw-plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{body}</svg>'


def legend(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """(CSS class of the line, name) per curve: colors for the method's own, gray patterns for controls."""
    found, own, controls = [], 0, 0
    for curve in curves:
        kind = f"sw-line-control-{controls % PATTERNS}" if curve["control"] else f"sw-line-{own % COLORS}"
        own, controls = own + (not curve["control"]), controls + bool(curve["control"])
        found.append((kind, str(curve["name"]).replace("_", " ")))
    return found


def _places(curves: Sequence[Curve]) -> list[list[float]]:
    """X of every curve as shares of the axis."""
    found = []
    for curve in curves:
        n = len(curve["x"])
        if all(isinstance(v, int | float) for v in curve["x"]):
            ends = [float(v) for c in curves for v in c["x"]]
            first, last = min(ends), max(ends)
            found.append([(float(v) - first) / ((last - first) or 1) for v in curve["x"]])
        else:
            found.append([i / max(1, n - 1) for i in range(n)])
    return found


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The axis: what is drawn, with 0 where it is near, and a little air."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if 0 < low < 0.5 * high:
        low = 0.0
    if 0.5 * low > high:
        high = 0.0
    air = 0.04 * ((high - low) or 1)
    return low - air, high + air


def _axis(low: float, high: float, at: Any, name: str) -> str:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (f * step) <= 5)
    parts = []
    tick = math.ceil(low / step) * step
    while tick <= high:
        _, y = at(0, tick)
        parts.append(f'<path class="sw-grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick + 0:.4g}</text>')
        tick = round(tick + step, 12)
    parts.append(
        f'<text class="sw-axis" transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(name)}</text>'
    )
    return "".join(parts)


def _names(names: Sequence[Any], places: Sequence[float], at: Any) -> list[str]:
    every = math.ceil(len(names) / MOST_NAMES)
    parts = []
    words = not all(isinstance(v, int | float) for v in names)
    for i, (name, place) in enumerate(zip(names, places, strict=True)):
        if i % every and i != len(names) - 1:
            continue
        x, y = at(place, 0)[0], HEIGHT - BOTTOM + 14
        text = str(name) if words else f"{name:.3g}"
        if words:
            short = text if len(text) <= 14 else text[:13] + "…"
            parts.append(
                f'<text transform="translate({x:.1f} {y}) rotate(-35)" text-anchor="end">'
                f"<title>{escape(text)}</title>{escape(short)}</text>"
            )
        else:
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>')
    return parts


def _line(points: Sequence[Mapping[str, Any]], places: Sequence[float], at: Any, kind: str) -> str:
    whole = [(p, x) for p, x in zip(points, places, strict=True) if p["value"] is not None]
    banded = [(p, x) for p, x in whole if p["low"] is not None and p["high"] is not None]
    parts = []
    if len(banded) > 1:
        edge = [at(x, p["high"]) for p, x in banded] + [at(x, p["low"]) for p, x in reversed(banded)]
        parts.append(f'<path class="sw-band {kind}" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b in edge) + 'Z"/>')
    if whole:
        line = "L".join("{:.1f} {:.1f}".format(*at(x, p["value"])) for p, x in whole)
        parts.append(f'<path class="sw-line {kind}" d="M{line}"/>')
    return "".join(parts)
