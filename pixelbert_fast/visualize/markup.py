"""Text made safe for a page, and what a page may do."""

from __future__ import annotations

import base64
import hashlib
import html
import re

# Characters that a page may not hold, or that a browser would drop.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: object) -> str:
    """Text for anywhere between tags or in a quoted attribute."""
    return html.escape(_CONTROLS.sub("\ufffd", str(text)), quote=True)


def security_policy(script: str | None = None, style: str | None = None) -> str:
    """The Content-Security-Policy of a page, a second lock beside escaping: nothing is loaded or sent.

    script: the only one that runs. style: the only one that holds; None: any in the page.
    """
    rules = ["default-src 'none'", "img-src data:"]
    if script is not None:
        rules.append(f"script-src {_digest(script)}")
    rules.append("style-src 'unsafe-inline'" if style is None else f"style-src {_digest(style)}")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _digest(code: str) -> str:
    """What a policy names inline code by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
