"""Charts as SVG: bars, and lines over two axes. Text, no library; readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH = 760
# Of subjects, by name; others take the colours that are left.
COLOURS = {
    "compiled": "#1769aa",
    "fallback": "#7fb3d5",
    "spvirit": "#c0562b",
    "caproto": "#d9a441",
    "p4p": "#5b8c5a",
    "pvapy": "#8e6bab",
}
_LEFT = ("#1769aa", "#c0562b", "#5b8c5a", "#8e6bab", "#d9a441", "#7fb3d5")
_TOP = 64

Points = Sequence[tuple[float, float]]


def _colours(names: Iterable[str]) -> dict[str, str]:
    names = list(names)
    if all(name in COLOURS for name in names):
        return {name: COLOURS[name] for name in names}
    return {name: _LEFT[i % len(_LEFT)] for i, name in enumerate(names)}


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#ddd"/>'


def _page(title: str, height: float, colours: Mapping[str, str], body: Iterable[str]) -> str:
    """The whole file: background, title, legend, and what is in it."""
    legend, x = [], 16.0
    for name, colour in colours.items():
        legend.append(f'<rect x="{x:.1f}" y="36" width="12" height="12" fill="{colour}"/>')
        legend.append(_text(x + 17, 46, name))
        x += 34 + 6.8 * len(name)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            _text(16, 22, title, more=' font-size="15" font-weight="600"'),
            *legend,
            *body,
            "</svg>\n",
        ]
    )


def short(number: float) -> str:
    """1.5k, 20M; three digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten around; positive values."""
    values = list(values)
    low, high = floor(log10(min(values)) + 1e-9), ceil(log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def bars(title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """How many times as long as a unit: horizontal bars on a logarithmic axis that begins at 1, in groups.

    What is below 1 is a bar to the left.
    """
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    colours = _colours(names)
    low, high = _decades([1, *(value for _, values in rows for value in values.values())])
    left, right = 300.0, WIDTH - 50.0

    def place(value: float) -> float:
        return left + (right - left) * (log10(value) - low) / (high - low)

    y = _TOP + 14.0
    body: list[str] = []
    for label, values in rows:
        body.append(_text(290, y + 7 * len(values) + 4, label, "end"))
        for name, value in values.items():
            start, end = sorted((place(1), place(value)))
            body.append(
                f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(end - start, 1):.1f}" height="12" '
                f'fill="{colours[name]}"/>'
            )
            body.append(_text(end + 4, y + 10, short(value)))
            y += 14
        y += 8
    grid = []
    for power in range(low, high + 1):
        x = place(10.0**power)
        grid += [_line(x, _TOP + 6, x, y), _text(x, _TOP, f"×{short(10.0**power)}", "middle")]
    return _page(title, y + 10, colours, grid + body)


def lines(title: str, across: str, up: str, series: Mapping[str, Points], *, logarithmic: bool = True) -> str:
    """Lines through points, which are marked; both axes logarithmic, or both from 0."""
    colours = _colours(series)
    left, right, top, bottom = 76.0, WIDTH - 24.0, float(_TOP), 400.0
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    if logarithmic:
        ticks_x, ticks_y = ([10.0**i for i in range(low, high + 1)] for low, high in map(_decades, (xs, ys)))
    else:
        ticks_x, ticks_y = ([float(i) for i in range(ceil(max(found)) + 1)] for found in (xs, ys))

    def scaled(value: float, ticks: list[float]) -> float:
        """0 to 1."""
        if logarithmic:
            return log10(value / ticks[0]) / log10(ticks[-1] / ticks[0])
        return value / ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * scaled(x, ticks_x), bottom - (bottom - top) * scaled(y, ticks_y)

    body: list[str] = []
    for tick in ticks_x:
        x, _ = place(tick, ticks_y[0])
        body += [_line(x, top, x, bottom), _text(x, bottom + 18, short(tick), "middle")]
    for tick in ticks_y:
        _, y = place(ticks_x[0], tick)
        body += [_line(left, y, right, y), _text(left - 8, y + 4, short(tick), "end")]
    body.append(_text((left + right) / 2, bottom + 38, across, "middle"))
    middle = (top + bottom) / 2
    body.append(_text(18, middle, up, "middle", f' transform="rotate(-90 18 {middle:.0f})"'))
    for name, points in series.items():
        placed = [place(x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colours[name]}"/>' for x, y in placed]
    return _page(title, bottom + 52, colours, body)
