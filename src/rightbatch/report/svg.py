"""A drawing made fit for a page: its colours follow the page's, its marks say their values, its names are its own."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from rightbatch.report.figures.drawing import BLUE, EMPTY, GREEN, GREY, GRID, INK, ORANGE

VARIABLES = {INK: "ink", GREY: "soft", GRID: "line", BLUE: "blue", ORANGE: "orange", GREEN: "green", EMPTY: "paper"}
"""Colours that the page has by name, so that they change with its light."""

POINTS = re.compile(r'<path aria-label="([^"]*)" role="[^"]*" aria-roledescription="(?:point|square|circle)"([^>]*?)/>')
SPOKEN = re.compile(r' (?:aria-[a-z]+|role)="[^"]*"')
IDENTIFIERS = re.compile(r'(id="|url\(#|xlink:href="#)((?:gradient|clip)[\w-]*)')


def for_page(svg: str, name: str, label: str) -> Markup:
    """An SVG that Vega has drawn, to stand in a page. `name` is its own in the page; `label` is what it is called."""
    # What a pointer rests on says its values; a screen reader has the words and the table, not every mark.
    svg = POINTS.sub(r"<path\2><title>\1</title></path>", svg)
    svg = SPOKEN.sub("", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(f'"{colour}"', f'"var(--{variable})"')
    svg = IDENTIFIERS.sub(rf"\g<1>{name}-\g<2>", svg)
    svg = re.sub(r'<svg ([^>]*?) width="[\d.]+" height="[\d.]+"', r"<svg \1", svg, count=1)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))
