#!/bin/sh
# Prints the newest Python on PATH that can make a virtual environment, or says what to install.
# Each candidate is run, not only looked up: pyenv's shims exist for versions that are not there.
too_old=
no_venv=
for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        too_old=$version
    elif "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    else
        no_venv=${no_venv:-$version}
    fi
done
if [ -n "$no_venv" ]; then
    # Debian and Ubuntu ship venv and ensurepip in a package of their own.
    echo "error: Python $no_venv is here without its venv module; install it first: apt-get install python$no_venv-venv" >&2
elif [ -n "$too_old" ]; then
    echo "error: sage_nb needs Python 3.11 or newer, and the newest on PATH is $too_old" >&2
else
    echo "error: sage_nb needs Python 3.11 or newer, and there is no python3 on PATH" >&2
fi
exit 1
