"""Memory of the process."""

import re
from pathlib import Path
from typing import Optional


def resident_memory(*, peak: bool = False) -> Optional[int]:
    """
    Return the resident memory of this process in bytes, now or at its peak. None on other systems
    than Linux. The peak of `getrusage` is that of the parent if that is higher.
    """
    name = "VmHWM" if peak else "VmRSS"
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
