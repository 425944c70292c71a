"""A log of a server with one JSON object per line."""

import json
import logging
import sys
import time
from typing import Any, TextIO

from ..utils.messages import one_line

logger = logging.getLogger("libra_d2.serving")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON. The argument `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = one_line(record.exc_info[1])
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logs(stream: TextIO = sys.stderr) -> None:
    """Write the messages of the server, and those of uvicorn, as lines of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in (logger.name, "uvicorn", "uvicorn.error"):
        one = logging.getLogger(name)
        one.handlers = [handler] if name != "uvicorn.error" else []
        one.propagate = name == "uvicorn.error"
        one.setLevel(logging.INFO)


def log(event: str, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    logger.log(level, event, exc_info=exc_info, extra={"fields": fields})
