"""A headless Chromium for the tests of pages; where there is none they are skipped, and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


@contextmanager
def chromium(profile: Path) -> Iterator:
    """A selenium driver with `profile`, an empty folder, as its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the dev extra)")
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("there is no chromium, or no chromedriver, on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


def open_page(driver, file: Path, *, width: int = 1100, height: int = 1200, dark: bool = False) -> None:
    """Loads a file in a window of that size, in light or dark."""
    view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(file.as_uri())


def contrast(driver, element) -> float:
    """Of an element's text against what lies behind it (WCAG 2, 1 to 21)."""
    return driver.execute_script(
        """
        const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        let behind = arguments[0];
        while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) {
          behind = behind.parentElement;
        }
        const ground = light(numbers(getComputedStyle(behind ?? document.body).backgroundColor));
        const ink = light(numbers(getComputedStyle(arguments[0]).color));
        return (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
        """,
        element,
    )
