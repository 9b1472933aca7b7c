"""Text made safe for a page."""

from __future__ import annotations

import html
import re

# Characters that a page may not hold, or that a browser would drop.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: object) -> str:
    """Text for anywhere between tags or in a quoted attribute."""
    return html.escape(_CONTROLS.sub("\ufffd", str(text)), quote=True)
