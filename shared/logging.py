"""Structured logs: JSON lines, or colours on a terminal, with what is bound (type, message, correlation, trace)."""

import logging
import sys
from typing import Final, TextIO, cast

import structlog
from prometheus_client import Counter

LINES_LOST: Final = Counter("yike_log_lines_lost", "log lines that could not be written")


class _Unfailing:
    """A stream that loses what cannot be written, and counts it: a full disk under the logs must not stop a service,
    and an error while an error is logged must not hide the first one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            LINES_LOST.inc()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            LINES_LOST.inc()


def set_up_logging(service: str, *, format_: str = "auto", level: str = "INFO") -> None:
    """Sets up structlog for a process. `format_`: json, console, or auto (console on a terminal)."""
    console = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        _console_renderer() if console else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        *([] if console else [structlog.processors.format_exc_info]),
        renderer,
    ]
    unfailing = cast("TextIO", _Unfailing(sys.stderr))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(unfailing),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=unfailing, format="%(levelname)s %(name)s %(message)s")


def _console_renderer() -> structlog.dev.ConsoleRenderer:
    """Colours; tracebacks without local variables, which may hold what must not be read in a log."""
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
