"""axe-core on a part of a page: what would keep somebody out who does not see it, or does not use a mouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

__all__ = ["violations"]

_AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


def violations(page: Page, selector: str) -> list[str]:
    """The serious and critical faults within `selector`; the rest of the page is Jupyter's."""
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=_AXE)
    found: list[dict[str, Any]] = page.evaluate("async selector => (await axe.run(selector)).violations", selector)
    return [
        f"{one['id']}: {node['html'][:150]}: {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
