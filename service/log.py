"""Logging: one event in each line on stderr, for people (`console`) or machines (`json`)."""

import contextlib
import logging
import sys
from collections.abc import Generator
from typing import Any

import structlog

from service.settings import Settings


def configure(settings: Settings, process: str) -> None:
    """Set up this process's logging. Every line names the `process` (api, worker, up)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)

    # Libraries (uvicorn, asyncio) use the standard library's logging. They get the same format.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(settings.log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _rendering(log_format: str) -> list[Any]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # The default traceback prints local variables, which may hold clients' data.
    plain = structlog.dev.plain_traceback
    colors = sys.stderr.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def add(**fields: object) -> None:
    """Add `fields` to every later line of this task, such as a request or a training."""
    structlog.contextvars.bind_contextvars(**fields)


def added(name: str) -> str | None:
    """Return the field `name` that `add` has set for this task, None if it has not."""
    value = structlog.contextvars.get_contextvars().get(name)
    return None if value is None else str(value)


@contextlib.contextmanager
def tolerated(
    logger: structlog.stdlib.BoundLogger, event: str, *silent: type[Exception], **fields: object
) -> Generator[None, None, None]:
    """Context manager: an error inside is logged as `event`, never raised.

    Errors of the types `silent` are not logged.
    """
    try:
        yield
    except silent:
        pass
    except Exception:
        logger.exception(event, **fields)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: `log = get(__name__)`; `log.info("event", key=value)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
