"""Servers in processes of their own."""

import contextlib
import os
import re
import subprocess
import sys

from ..support.project import ROOT

START = (
    "import sys, libra_d2_launcher; sys.argv[0] = 'libra-d2'; sys.exit(libra_d2_launcher.main())"
)


def command(*options):
    return [sys.executable, "-c", START, "serve", *map(str, options)]


@contextlib.contextmanager
def running(*options, **env):
    """A server at a free port: the process, and its port."""
    process = subprocess.Popen(
        command("--port", 0, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    try:
        line = process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert match, f"{line}{process.communicate(timeout=30)[1]}"
        yield process, int(match[1])
    finally:
        process.kill()
        process.communicate()
