"""
Starts Python programs from a process that has imported PyTorch and this package already, which
takes several seconds of processor time in a new process.

It reads lines of JSON from its standard input, and answers in such lines.

    {"run": ["train_net.py", ...], "cwd": FOLDER, "env": {...}, "out": FILE, "err": FILE}
                      ->  {"pid": 123}
    {"poll": 123}     ->  {"status": null}, or the exit status once the process has ended

The arguments are those of Python: a script, or `-c` and code, or `-m` and a module.
"""

import atexit
import json
import os
import runpy
import signal
import sys
import threading
import traceback

import libra_d2.engine
import libra_d2.planning  # noqa: F401


def run(args, cwd, env, out, err):
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    end(status_of(args))


def status_of(args):
    try:
        if args[0] == "-c":
            sys.argv = ["-c", *args[2:]]
            exec(args[1], {"__name__": "__main__"})
        elif args[0] == "-m":
            sys.argv = args[1:]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = args
            runpy.run_path(args[0], run_name="__main__")
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status):
    """Do what Python does at its end, but do not free all modules, which takes a second."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main():
    for line in sys.stdin:
        command = json.loads(line)
        if "run" in command:
            args = command.pop("run")
            answer = {"pid": run(args, **command)}
        else:
            pid, status = os.waitpid(command["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
