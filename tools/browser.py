"""The browser that the tests drive: an installed Chromium or Chrome, or one that this script gets.

`python -m tools.browser` prints its path. It tries, in this order: what is on PATH; Debian's `chromium`, where apt-get
and root are there; Playwright's own build. Where none can be had it says so, and with CI=true that is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The path of a browser that starts, or None."""
    candidates = [path for name in NAMES if (path := shutil.which(name))]
    return next(filter(starts, candidates), None) or find_playwrights()


def find_playwrights() -> str | None:
    """The path of the browser that Playwright installed, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if starts(path) else None


def starts(path: str) -> bool:
    """Whether this browser runs at all: Ubuntu's `chromium-browser` may be a script that asks for snap instead."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install() -> None:
    """Try to get a browser, showing what is done; `find` tells whether it worked."""
    root_with_apt = shutil.which("apt-get") is not None and os.geteuid() == 0
    if root_with_apt:
        run("apt-get", "update")
        run("apt-get", "install", "--yes", "--no-install-recommends", "chromium")
        if find():
            return
    # Without root, Playwright would ask for a password to add the system libraries that its browser needs.
    run(sys.executable, "-m", "playwright", "install", *(["--with-deps"] if root_with_apt else []), "chromium")


def run(*command: str) -> None:
    """Run a command with its output in sight; its failure shows in what `find` says afterwards."""
    print("$", " ".join(command), flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, env=environment, check=False)


def main() -> int:
    path = find()
    if path is None:
        print("no Chromium or Chrome on PATH; getting one", flush=True)
        install()
        path = find()
    if path:
        print(path)
        return 0
    required = os.environ.get("CI", "").lower() in ("1", "true")
    print(
        f"{'error' if required else 'warning'}: no browser could be installed, so the browser tests cannot run;"
        " install Chromium or Google Chrome and try again",
        file=sys.stderr,
    )
    return 1 if required else 0


if __name__ == "__main__":
    sys.exit(main())
