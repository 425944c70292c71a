"""Python programs in processes of their own that start in a moment: see program_server.py."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .project import ROOT

TIMEOUT = 1800  # seconds, for machines that are slow or busy


class ProgramServer:
    """
    Args:
        command: that the server is started with, such as one that gives it a disk of its own.
    """

    def __init__(self, command=()):
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", "tests.support.program_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *args, out, err, cwd=ROOT, env=None):
        """
        Args:
            args: those of Python: a script, or `-c` and code, or `-m` and a module.
            out, err: files that the output is appended to.
        """
        env = dict(os.environ) if env is None else env
        args = [str(a) for a in args]
        answer = self.ask(run=args, cwd=str(cwd), env=env, out=str(out), err=str(err))
        return Program(self, answer["pid"], Path(out))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Program:
    def __init__(self, server, pid, log):
        self.server, self.pid, self.log = server, pid, log
        self.log.touch()  # it may be read before the program has opened it
        self.status = None

    def ended(self):
        if self.status is None:
            self.status = self.server.ask(poll=self.pid)["status"]
        return self.status is not None

    def wait_for(self, pattern):
        """Wait until a regular expression is found in the log, or the program has ended."""
        while not re.search(pattern, self.log.read_text()) and not self.ended():
            time.sleep(0.01)

    def kill(self):
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while not self.ended():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"not ended after {timeout} s: {self.tail()}")
            time.sleep(0.01)
        return self.status

    def tail(self):
        return self.log.read_text()[-3000:]


@functools.lru_cache(maxsize=1)
def program_server():
    """The server of this process, which ends with it."""
    return ProgramServer()


def run_python(*args, cwd=ROOT, env=None):
    """Run a program to its end, like `subprocess.run(..., capture_output=True, text=True)`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        program = program_server().start(*args, cwd=cwd, env=env, out=out, err=err)
        status = program.wait()
        return subprocess.CompletedProcess(args, status, out.read_text(), err.read_text())
