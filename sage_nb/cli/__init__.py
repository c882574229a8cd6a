"""`sage-nb`, the command line: servers, their jobs, and scripts.

Each group of commands has a module, which is imported when one of them is asked for; so `sage-nb --help` is quick.
Commands give an exit code: 0, 1 where they could not do what was asked, 2 where it makes no sense, 3 where `status`
finds no server, 130 after Ctrl-C. Errors are one line on stderr; `--debug` shows where they come from.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code."""
    from sage_nb.cli.parser import parse
    from sage_nb.errors import SageError

    args = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        module, _, function = args.call.partition(":")
        code: int = getattr(importlib.import_module(f"sage_nb.cli.{module}"), function)(args)
        sys.stdout.flush()
        return code
    except SageError as exc:
        if args.debug:
            raise
        print(f"sage-nb: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sage-nb job list | head`: what is left has no reader, and the interpreter would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
