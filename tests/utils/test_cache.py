import os
import subprocess
import sys

from ..support.project import ROOT


def test_a_user_without_home_and_name_can_import_everything(tmp_path):
    """Containers often run under a user id that is not in /etc/passwd."""
    code = """
import os, pwd
def unknown(*_): raise KeyError("getpwuid(): uid not found: 54321")
pwd.getpwuid = unknown
import libra_d2, libra_d2.cli.main, libra_d2.engine
from libra_d2.data.datasets.shapes import shapes_root
print(shapes_root())
"""
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "LIBRA_D2_CACHE")
    env = {key: value for key, value in os.environ.items() if key not in names}
    env.update(PYTHONPATH=str(ROOT), TMPDIR=str(tmp_path))
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-500:]
    assert run.stdout.strip() == str(tmp_path / f"libra_d2-{os.getuid()}" / "shapes-v1")
    assert "Traceback" not in run.stderr
