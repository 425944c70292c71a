"""The journal of a run knows all that was written to it, also after a signal."""

import os
import signal

import pytest

from libra_d2.predictions.detections import Detections
from libra_d2.predictions.writing import Journal
from libra_d2.utils.interrupts import Interrupted, raising_interrupts

ONE = Detections(height=4, width=6, boxes=[[0.0, 0.0, 3.0, 2.0]], scores=[0.5], labels=[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_lines_written_when_a_signal_arrives_are_known(tmp_path, number):
    journal = Journal(str(tmp_path / "p.json.journal"), {"weights": "1"})
    write = journal._file.write

    class Written:
        """A file that a signal interrupts when a line has been written."""

        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, text):
            write(text)
            os.kill(os.getpid(), number)

    file, journal._file = journal._file, Written()
    with pytest.raises(Interrupted), raising_interrupts(even_if_ignored=True):
        journal.add([("a.png", [1, 2], ONE), ("b.png", [3, 4], ONE)])
    assert dict(journal.read(["a.png", "b.png"])) == {"a.png": ONE, "b.png": ONE}
    journal.close()
    resumed = Journal(str(tmp_path / "p.json.journal"), {"weights": "1"}, resume=True)
    assert resumed.has("a.png", [1, 2]) and resumed.has("b.png", [3, 4])
    resumed.close()
