"""Looks at a report in a real Chromium and writes what it saw; run in the browser environment.

    browser_probe.py PAGE CHROMIUM FOLDER CHOICES

CHOICES is JSON: what-if choices to compute. result.json and screenshots go to FOLDER; every request
that leaves PAGE is stopped and named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

VIEWS = (("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "light", 400))
PATIENCE_MS = 120_000  # a loaded machine is no fault of the page
SECTIONS = ("what-if", "browse", "reliability", "overlap", "groups")
# Text whose colour is too near to what is behind it: WCAG 2 AA, 4.5 to 1. Opacity is disabled form
# controls, which the rule leaves out.
FAINT_TEXT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const faint = new Set();
  for (const element of document.querySelectorAll("main *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility() || element.tagName === "title") continue;
    if (element.disabled || element.closest("option, :disabled")) continue;
    const style = getComputedStyle(element);
    const text = light(rgba(element.closest("svg") ? style.fill : style.color));
    const back = light(behind(element));
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    if (ratio < 4.5) faint.add(`${element.tagName} ${element.className}: ${ratio.toFixed(2)}`);
  }
  return [...faint];
}"""


def table(page: Page) -> list[list[str]]:
    rows = page.locator("#what-if-table tbody tr, #what-if-table tfoot tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def what_if(page: Page, choices: list[dict[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {"own": table(page), "said": page.inner_text("#what-if-said")}
    page.fill("#what-if-budget", "57")
    seen["changed"] = table(page)
    seen["said_changed"] = page.inner_text("#what-if-said")
    page.click("text=Reset to the run")
    seen["reset"] = table(page)
    page.evaluate("element => { element.value = 0; }", page.query_selector("#what-if-share"))
    page.dispatch_event("#what-if-share", "input")
    seen["share_of_nothing"] = page.input_value("#what-if-budget"), table(page)
    page.click("text=Reset to the run")
    seen["computed"] = page.evaluate(
        """choices => {
          const data = dataOf("what-if-data");
          const samples = Object.fromEntries(
            Object.entries(data.samples).map(([source, sample]) => [source, decoded(sample)]));
          return choices.map((choice) => whatIf(data.arms[0], samples, choice).sources);
        }""",
        choices,
    )
    return seen


def from_half_of_the_sample(page: Page, choices: list[dict[str, Any]]) -> Any:
    """Returns what the choices keep by every other record of the sample."""
    return page.evaluate(
        """choices => {
          const data = dataOf("what-if-data");
          const halved = (sample) => {
            const { tokens, ratings } = decoded(sample);
            const isIn = (record) => record % 2 === 0;
            return {
              ...sample,
              tokens: tokens.filter((_, record) => isIn(record)),
              ratings: ratings.filter((_, index) => isIn(Math.floor(index / NUM_SLOTS))),
            };
          };
          const samples = Object.fromEntries(
            Object.entries(data.samples).map(([source, sample]) => [source, halved(sample)]));
          return choices.map((choice) => whatIf(data.arms[0], samples, choice).sources);
        }""",
        choices,
    )


def shown_records(page: Page) -> int:
    return int(page.locator("#records-list details").count())


def records(page: Page) -> dict[str, Any]:
    seen: dict[str, Any] = {"all": shown_records(page), "count": page.inner_text("#records-count")}
    for name, selector, value in (
        ("source", "#records-source", "qa"),
        ("decision", "#records-decision", "kept"),
        ("status", "#records-status", "failed"),
    ):
        if page.locator(f"{selector} option[value={value}]").count():
            page.select_option(selector, value)
            seen[name] = shown_records(page)
            page.select_option(selector, "")
    page.fill("#records-low", "8.5")
    seen["range"] = page.locator("#records-list .score").all_inner_texts()
    page.fill("#records-low", "")
    page.fill("#records-words", "NEEDLE")
    seen["words"] = shown_records(page)
    page.click("text=Clear filters")
    # The fields change after the event.
    expect(page.locator("#records-list details")).to_have_count(seen["all"], timeout=PATIENCE_MS)
    seen["cleared"] = shown_records(page)
    while page.is_visible("#records-more"):
        page.click("#records-more")
    seen["with_more"] = shown_records(page)
    for summary in page.locator("#records-list summary").all():
        summary.click()
    # Told of by an event that comes later.
    bodies = page.locator("#records-list .body")
    expect(bodies).to_have_count(seen["with_more"], timeout=PATIENCE_MS)
    seen["open"] = page.locator("#records-list .body").count()
    seen["text"] = page.inner_text("#records-list")
    return seen


def keyboard(page: Page) -> dict[str, Any]:
    """Tabs through the page once; sets a budget, resets, and opens a record on the way."""
    seen: dict[str, Any] = {"invisible_focus": [], "stops": 0}
    reached: set[str] = set()
    describe = """() => { const at = document.activeElement; return [
      at.id || at.name || at.tagName + "." + at.className, at.tagName,
      getComputedStyle(at).outlineStyle !== "none" ]; }"""
    for _ in range(1500):
        page.keyboard.press("Tab")
        name, tag, has_outline = page.evaluate(describe)
        if tag == "BODY":
            break
        seen["stops"] += 1
        if not has_outline:
            seen["invisible_focus"].append(name)
        if name == "what-if-budget":
            page.keyboard.press("Control+A")
            page.keyboard.type("57")
            seen["typed"] = table(page)
        elif name == "reset":
            page.keyboard.press("Enter")
            seen["reset"] = table(page)
        elif (
            tag == "SUMMARY"
            and "opened" not in seen
            and page.evaluate("document.activeElement.closest('#records-list') !== null")
        ):
            page.keyboard.press("Enter")
            page.locator("#records-list .body").first.wait_for()
            seen["opened"] = page.locator("#records-list .body").count()
        reached.add(name)
    controls = page.eval_on_selector_all(
        "form :is(input, select, button):not(:disabled)",
        "all => all.filter((each) => each.checkVisibility()).map((each) => each.id || each.name"
        " || each.tagName + '.' + each.className)",
    )
    seen["not_reached"] = sorted(set(controls) - reached)
    return seen


def attacks(page: Page) -> dict[str, Any]:
    return {
        "scripts": page.locator("script").count(),
        "foreign": page.locator("img, iframe, object, embed, form[action], base").count(),
        "handlers": page.evaluate(
            "[...document.querySelectorAll('*')].filter((each) => [...each.attributes]"
            ".some(({ name }) => name.startsWith('on'))).length"
        ),
        "links": page.evaluate(
            "[...document.links].map((each) => each.getAttribute('href'))"
            ".filter((href) => !href.startsWith('#'))"
        ),
        "was_run": page.evaluate("window.attacked ?? null"),
        "blocked_by_policy": page.evaluate(
            """async () => {
              const script = document.createElement("script");
              script.textContent = "window.injected = true";
              document.body.append(script);
              document.body.setAttribute("onclick", "window.clicked = true");
              document.body.click();
              let sent = true;
              try { await fetch("http://127.0.0.1:9/"); } catch { sent = false; }
              script.remove(); document.body.removeAttribute("onclick");
              return !window.injected && !window.clicked && !sent;
            }"""
        ),
    }


def screenshots(browser: Browser, address: str, folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, scheme, width in VIEWS:
        page = browser.new_page(
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
        )
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        if page.locator("#records-list summary").count():
            page.locator("#records-list summary").first.click()
        if page.is_enabled("#what-if-mask"):
            page.check("#what-if-mask")
        seen[name] = {
            "faint": page.evaluate(FAINT_TEXT),
            "too_wide": page.evaluate("document.documentElement.scrollWidth") > width,
        }
        for section in SECTIONS:
            found = page.locator(f"section[aria-labelledby={section}]")
            if found.count():
                found.screenshot(path=folder / f"{name}-{section}.png")
        page.close()
    return seen


def main(address: str, chromium: str, folder: Path, choices: list[dict[str, Any]]) -> None:
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
        seen: dict[str, Any] = {"what_if": what_if(page, choices)}
        seen["from_half"] = from_half_of_the_sample(page, choices)
        page.reload()
        seen["keyboard"] = keyboard(page) if choices else {}
        page.reload()
        seen["records"] = records(page)  # leaves them open: what is in them is looked at next
        seen["console"] = list(said)
        seen["requests"] = [each for each in left if each not in (address, "data:,")]
        seen["attacks"] = attacks(page)
        seen["views"] = screenshots(browser, address, folder) if choices else {}
        browser.close()
    (folder / "result.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    where = Path(sys.argv[1]).resolve().as_uri()
    main(where, sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
