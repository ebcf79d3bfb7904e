"""Looks at a comparison in a real Chromium and writes what it saw; run in the browser environment.

    comparison_probe.py PAGE CHROMIUM FOLDER

result.json and screenshots go to FOLDER; every request that leaves PAGE is stopped and named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from browser_probe import FAINT_TEXT, PATIENCE_MS, VIEWS, attacks
from playwright.sync_api import Browser, Page, sync_playwright

OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
NAMELESS = """[...document.querySelectorAll('svg:not([aria-hidden]), [role=region], nav')]
  .filter((each) => !each.getAttribute('aria-label')).length"""


def keyboard(page: Page) -> dict[str, Any]:
    """Tabs through the page once, and opens the first details on the way."""
    seen: dict[str, Any] = {"stops": 0, "invisible_focus": 0, "opened": 0}
    for _ in range(1500):
        page.keyboard.press("Tab")
        tag, has_outline = page.evaluate(
            "[document.activeElement.tagName,"
            " getComputedStyle(document.activeElement).outlineStyle !== 'none']"
        )
        if tag == "BODY":
            break
        seen["stops"] += 1
        seen["invisible_focus"] += not has_outline
        if tag == "SUMMARY" and not seen["opened"]:
            page.keyboard.press("Enter")
            seen["opened"] = page.locator("details[open]").count()
    return seen


def views(browser: Browser, address: str, folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, scheme, width in VIEWS:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.screenshot(path=folder / f"{name}.png", clip=_top(width), full_page=True)
        page.evaluate(OPEN_ALL)
        seen[name] = {
            "faint": page.evaluate(FAINT_TEXT),
            "too_wide": page.evaluate("document.documentElement.scrollWidth") > width,
        }
        page.close()
    return seen


def _top(width: int) -> Any:
    return {"x": 0, "y": 0, "width": width, "height": 2600}


def main(address: str, chromium: str, folder: Path) -> None:
    with sync_playwright() as playwright:
        # Chromium's own sandbox wants user namespaces, which a container may not have.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        said: list[str] = []
        left: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: left.append(request.url))
        page.route(
            "**/*",
            lambda route: route.continue_() if route.request.url == address else route.abort(),
        )
        page.goto(address)
        seen: dict[str, Any] = {"keyboard": keyboard(page), "nameless": page.evaluate(NAMELESS)}
        page.evaluate(OPEN_ALL)
        seen["text"] = page.inner_text("main")
        seen["console"] = list(said)
        seen["requests"] = [each for each in left if each not in (address, "data:,")]
        seen["attacks"] = attacks(page)
        seen["views"] = views(browser, address, folder)
        browser.close()
    (folder / "result.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve().as_uri(), sys.argv[2], Path(sys.argv[3]))
