"""Flat drawings of lines, dots and words, written as SVG or painted for PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

TEXT, DOT = 12, 5
"""Height of the words and radius of the dots, in the unit of all coordinates."""
_PNG_SCALE, _SUPERSAMPLING = 2, 4


class Line(NamedTuple):
    """Join two points by a hairline."""

    x0: float
    y0: float
    x1: float
    y1: float
    colour: str


class Dot(NamedTuple):
    """Fill a disk."""

    x: float
    y: float
    colour: str


class Text(NamedTuple):
    """Write words whose baseline begins, has its middle, or ends at a point."""

    x: float
    y: float
    words: str
    colour: str
    anchor: str = "start"


Shape = Line | Dot | Text


def svg(panels: Sequence[Sequence[Shape]], width: int, height: int) -> str:
    """Return an SVG file of panels side by side, each of width x height."""
    whole = width * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" '
        f'width="{whole}" height="{height}" font-family="sans-serif" font-size="{TEXT}">',
        f'<rect width="{whole}" height="{height}" fill="white"/>',
    ]
    for number, shapes in enumerate(panels):
        lines.append(f'<g transform="translate({number * width} 0)">')
        lines += [_element(shape) for shape in shapes]
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _element(shape: Shape) -> str:
    match shape:
        case Line(x0, y0, x1, y1, colour):
            ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
            return f'<line {ends} stroke="{colour}"/>'
        case Dot(x, y, colour):
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{colour}"/>'
        case Text(x, y, words, colour, anchor):
            place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
            return f'<text {place} fill="{colour}">{escape(words)}</text>'


def paint(panels: Sequence[Sequence[Shape]], width: int, height: int) -> Image.Image:
    """Return a picture of panels side by side, painted large and reduced for smooth edges."""
    scale = _PNG_SCALE * _SUPERSAMPLING
    font = ImageFont.load_default(TEXT * scale)
    picture = Image.new("RGB", (_PNG_SCALE * width * len(panels), _PNG_SCALE * height))
    for number, shapes in enumerate(panels):
        sheet = Image.new("RGB", (width * scale, height * scale), "white")
        draw = ImageDraw.Draw(sheet)
        for shape in shapes:
            match shape:
                case Line(x0, y0, x1, y1, colour):
                    ends = [x0 * scale, y0 * scale, x1 * scale, y1 * scale]
                    draw.line(ends, fill=colour, width=scale)
                case Dot(x, y, colour):
                    draw.circle((x * scale, y * scale), DOT * scale, fill=colour)
                case Text(x, y, words, colour, anchor):
                    side = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
                    draw.text((x * scale, y * scale), words, fill=colour, font=font, anchor=side)
        picture.paste(sheet.reduce(_SUPERSAMPLING), (number * width * _PNG_SCALE, 0))
    return picture
