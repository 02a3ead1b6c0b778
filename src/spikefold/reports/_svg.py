"""Figures as SVG inside of a page, in the page's colours."""

import io
import re

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from spikefold.reports._figures import COLORS, MARK

# matplotlib's black, white, grid and legend frame; what the page calls them
_INKS = {
    "#000000": "ink",
    "#ffffff": "paper",
    "#b0b0b0": "line",
    "#cccccc": "line",
    MARK: "muted",
    **{color: f"c{number}" for number, color in enumerate(COLORS)},
}


def inline_svg(figure: Figure, alt: str, prefix: str) -> Markup:
    """A figure as an element of a page: it scales, takes the page's colours, and has a text.

    Arguments:
        figure: drawn inside of `drawing`.
        alt: what it shows, for those who do not see it.
        prefix: of its identifiers, which must be unique in a page.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    # The style would hold for the whole page.
    for element in ("metadata", "style"):
        body = re.sub(rf"<{element}.*?</{element}>", "", body, flags=re.DOTALL)
    body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    # A hundredth of a point is enough.
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)
    body = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _ink, body)
    width, height = (round(72 * inches, 1) for inches in figure.get_size_inches())
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}" '
        f'style="max-width: {width / 72:.2f}in" role="img" aria-label="{escape(alt)}">'
    )
    return Markup(head + body)


def _ink(match: re.Match[str]) -> str:
    name = _INKS.get(match[2])
    return f"{match[1]}: var(--{name})" if name else match[0]
