"""The connection to the store: clients, calls with a deadline, and the meaning of errors.

Every call answers or fails within a deadline. Nothing is retried: after a time-out it is unknown
whether a write happened, so only the caller can know whether a repetition is safe.

Several reads are a pipeline without a transaction, because a server that is out of memory refuses
a transaction even of reads.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from service.problems import SILENT, StoreUnavailable
from service.store.redis_keys import NOTIFY, REPLICATED
from service.store.secret_files import credentials, sentinel_credentials, share_context
from service.store.sentinel import is_watched, master_pool

Connection = Redis  # other subpackages use this name in type annotations

DEADLINE = 0.8  # below the 1 s within which clients are promised an answer
POOL = 64  # connections of one process; further callers wait, within the deadline

Answer = TypeVar("Answer")

# An error reply with a code, such as BUSY, is about the state of a server, a proxy or a user. A
# reply without a code is a bug of this service, except for these words.
_UNAVAILABLE = (
    "max number of clients", "DB index", "invalid DB index", "Protocol error: unauthenticated",
    # The user, a proxy or an old server does not allow a command, or a script to use it.
    "ACL failure in script", "The user executing the script", "Error compiling script",
    "unknown command", "unsupported command", "SELECT is not allowed",
)  # fmt: skip
_CODE = re.compile(r"[A-Z]{3,}(?= )")  # the first word of an error reply, such as BUSY
# redis-py puts the command, which may hold clients' data, before the error of a pipeline.
_PIPELINE_ERROR = re.compile(
    r"Command # .* of pipeline caused error: \(['\"](.*)['\"],\)", re.DOTALL
)


class WeakStore(Exception):  # noqa: N818 - it states what is wrong
    """The server can lose acknowledged writes; the message names the setting."""


async def connect(url: str, *, deadline: float = DEADLINE) -> Redis:
    """Return a client for `url` that connects at first use.

    Every single call answers or fails within `deadline` seconds. Blocking reads and subscriptions
    need their own client with a longer deadline.
    """
    for_sentinels = sentinel_credentials(url)
    url, login = credentials(url)
    options: dict[str, Any] = login | {
        "max_connections": POOL,
        "timeout": deadline,
        "socket_timeout": deadline,
        "socket_connect_timeout": deadline,
        "retry": Retry(backoff=NoBackoff(), retries=0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "protocol": 2,
        "driver_info": None,  # saves two round trips for each connection
    }
    if is_watched(url):
        pool: Any = master_pool(url, for_sentinels, deadline=deadline, **options)
    else:
        pool = BlockingConnectionPool.from_url(url, **options)
    share_context(pool)
    return Redis.from_pool(pool)


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Convert errors of the connection and of the store to StoreUnavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        if isinstance(error, ResponseError) and not _is_unavailable(error):
            raise
        code = _code(error)
        detail = f"The store refuses the command: {code}." if code else SILENT
        raise StoreUnavailable(detail) from error


async def ask(redis: Redis, question: Awaitable[Answer]) -> Answer:
    """Return the store's answer; raise StoreUnavailable once the deadline of `redis` is over.

    After the deadline `question` is abandoned, but never cancelled: a cancellation at the wrong
    moment makes redis-py lose a connection of its pool for good. The time-outs of redis-py end the
    call soon after.
    """
    reply = asyncio.ensure_future(question)
    reply.add_done_callback(_retrieve_exception)
    deadline = redis.connection_pool.connection_kwargs.get("socket_timeout")
    answered, _ = await asyncio.wait((reply,), timeout=deadline)
    if not answered:
        raise StoreUnavailable
    async with store_errors():
        return reply.result()


async def ask_each(redis: Redis, pipe: Any) -> list[Any]:
    """Return the replies of a pipeline. For a key of a wrong type the reply is a ResponseError.

    So the damaged key of one detector does not hide the replies about others. Raises
    StoreUnavailable.
    """

    async def replies() -> list[Any]:
        results: list[Any] = await pipe.execute(raise_on_error=False)
        for reply in results:
            if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
                raise reply
        return results

    return await ask(redis, replies())


def cause(error: StoreUnavailable) -> str:
    """Return why the store does not answer, in words for the log and for operators."""
    first = error.__cause__
    if first is None:
        return f"no answer in time ({DEADLINE:g} s)" if error.detail == SILENT else error.detail
    words = " ".join(_words(first).split()).rstrip(".")
    if isinstance(first, OSError | TimeoutError) and not words:
        return "no answer in time"
    return f"{type(first).__name__}: {words}" if words else type(first).__name__


async def refused(url: str, *, allow_weak: bool) -> str | None:
    """Return why the store at `url` must not be used; None if it may be used or does not answer."""
    async with await connect(url) as redis:
        try:
            await check_durability(redis, allow_weak=allow_weak)
        except WeakStore as error:
            return str(error)
        except StoreUnavailable:
            pass
        return None


async def unreachable(url: str) -> str | None:
    """Return why the store at `url` does not answer; None if it answers."""
    async with await connect(url) as redis:
        client: Any = redis
        try:
            await ask(redis, client.ping())
        except StoreUnavailable as error:
            return cause(error)
        return None


def _retrieve_exception(reply: "asyncio.Future[Any]") -> None:
    # The caller may be gone. asyncio logs an exception that nobody has retrieved.
    if not reply.cancelled():
        reply.exception()


def _is_unavailable(error: ResponseError) -> bool:
    # redis-py raises a subclass for some errors, such as ReadOnlyError, and removes their code.
    words = _words(error)
    code = _CODE.match(words)
    # A key of a wrong type was written by somebody else.
    stateful = code is not None and code[0] != "WRONGTYPE"
    return type(error) is not ResponseError or stateful or words.startswith(_UNAVAILABLE)


def _code(error: BaseException) -> str | None:
    """Return the code of the server's error reply, or its words. None if it did not reply."""
    code: str | None = getattr(error, "status_code", None)  # set if redis-py removed it
    if code not in (None, "ERR"):
        return code
    if code is None and not isinstance(error, ResponseError):
        return None
    words = _words(error)
    found = _CODE.match(words)
    return found[0] if found else words.rstrip(".")


def _words(error: BaseException) -> str:
    """Return the server's words, without the command that failed."""
    match = _PIPELINE_ERROR.fullmatch(str(error))
    words = match[1] if match else str(error)
    return words.partition(", with args beginning with")[0]  # they may hold clients' data


class Script:
    """A Lua script, called by its hash; its source is sent if the server does not know the hash."""

    def __init__(self, source: str, *, flags: str = "") -> None:
        # Because of the first line, a server that is out of memory or read-only refuses the script
        # before its first command, not in the middle.
        self.source = f"#!lua flags={flags}\n{source}".encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        """Run the script once; raises StoreUnavailable if the outcome is unknown."""
        return await ask(redis, self.run(redis, keys, args))

    async def run(self, redis: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script without a deadline; raises the errors of redis-py unchanged."""
        try:
            return await redis.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:  # the script did not run, so a repetition is safe
            return await redis.eval(self.source, len(keys), *keys, *args)


async def store_time(redis: Redis) -> float:
    """Return the store's time in seconds since 1970. Raises StoreUnavailable."""
    client: Any = redis
    seconds, microseconds = await ask(redis, client.time())
    return float(seconds) + float(microseconds) / 1e6


async def replicated(redis: Redis, replicas: int) -> None:
    """Wait until `replicas` replicas have all earlier writes; raise StoreUnavailable otherwise.

    A replica applies writes in order: if it has a later write, it also has all earlier ones.
    """
    pipe: Any = redis.pipeline(transaction=False)
    pipe.set(REPLICATED, b"", px=1000)
    pipe.execute_command("WAIT", replicas, int(DEADLINE * 500))
    _, reached = await ask(redis, pipe.execute())
    if reached < replicas:
        raise StoreUnavailable(
            f"The batch is stored, but only {reached} of {replicas} replicas have it. Send it "
            "again with the same Idempotency-Key."
        )


async def check_durability(redis: Redis, *, allow_weak: bool = False) -> tuple[str, ...]:
    """Raise WeakStore if the server can lose acknowledged writes.

    With `allow_weak` nothing is raised: the weaknesses are returned as sentences.
    """
    needed = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    client: Any = redis
    stored = await ask(redis, _server_settings(client, *needed))
    in_force = {_text(name): _text(value) for name, value in stored.items()}
    weak = tuple(
        f"{name} is {in_force.get(name, 'hidden by the server')}, not {value}"
        for name, value in needed.items()
        if in_force.get(name) != value
    )
    if weak and not allow_weak:
        raise WeakStore(
            f"The store can lose acknowledged writes: {'; '.join(weak)}. Change these settings "
            "of the store, or accept the loss with ANAMNESIS_ALLOW_WEAK_STORE=true."
        )
    return weak


async def _server_settings(redis: Any, *names: str) -> dict[Any, Any]:
    try:
        return dict(await redis.config_get(*names))
    except ResponseError as error:
        if not isinstance(error, NoPermissionError) and "unknown command" not in str(error):
            raise
        return {}  # a hosted server may hide its settings


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


_LOOK_SECONDS = 1.0  # between two checks of the connection


async def notifications(redis: Redis) -> AsyncIterator[str]:
    """Yield the name of every detector that changes.

    `redis` must serve nothing else: a subscription occupies its connection. A notification is lost
    if nobody listens, so listeners also poll. Raises StoreUnavailable.
    """
    async with store_errors(), redis.pubsub() as subscription:
        await subscription.subscribe(NOTIFY)
        while True:
            message = await subscription.get_message(
                ignore_subscribe_messages=True, timeout=_LOOK_SECONDS
            )
            if message:
                yield message["data"].decode()
