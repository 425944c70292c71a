"""
Install the browser in which the tests of the report run. `make test` runs this file.

If there is a browser already, this does nothing. The file uses only the standard library.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGE = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
OS_RELEASE = Path("/etc/os-release")


def main():
    if find_browser():
        return
    distribution = os_release().get("ID", "")
    if distribution == "ubuntu":  # its package only installs a snap
        sys.exit("the tests need Chromium: run `snap install chromium`, or install google-chrome")
    if distribution != "debian" or not shutil.which("apt-get"):
        sys.exit(f"the tests need Chromium: install one of {', '.join(NAMES)}")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and not shutil.which("sudo"):
        sys.exit("the tests need Chromium: run `apt-get install chromium` as root")
    print("Installing Chromium, which the tests need (once) ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], PACKAGE):
        if subprocess.run([*as_root, *command], env=environment, stdout=sys.stderr).returncode:
            sys.exit(f"could not install Chromium. Run `{' '.join(PACKAGE)}` as root")
    if not find_browser():
        sys.exit("Chromium was installed, but it is not on PATH")


def find_browser():
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def os_release():
    if not OS_RELEASE.is_file():
        return {}
    lines = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    return {k: v.strip("\"'") for k, _, v in (line.partition("=") for line in lines)}


if __name__ == "__main__":
    main()
