"""Structured logs: JSON lines, or colours on a terminal, with what is bound (type, message, correlation, trace)."""

import logging
import sys

import structlog


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
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _console_renderer() -> structlog.dev.ConsoleRenderer:
    """Colours; tracebacks without local variables, which may hold what must not be read in a log."""
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
