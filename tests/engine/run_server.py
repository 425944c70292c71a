"""
Runs train_net.py again and again without importing PyTorch each time: reads lines of JSON from its
standard input, and answers in such lines.

    {"run": ["--config-file", ...], "log": FILE}  ->  {"pid": 123}
    {"poll": 123}  ->  {"status": null}, or the exit status once the process has ended
"""

import json
import os
import runpy
import signal
import sys

import libra_d2.engine  # noqa: F401

from ..support.project import ROOT


def run(args, log):
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [str(ROOT / "train_net.py"), *args]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


def main():
    for line in sys.stdin:
        command = json.loads(line)
        if "run" in command:
            answer = {"pid": run(command["run"], command["log"])}
        else:
            pid, status = os.waitpid(command["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
