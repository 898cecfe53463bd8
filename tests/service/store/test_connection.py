import asyncio
import signal
import time

import pytest

from service.problems import StoreUnavailable
from service.store.connection import (
    POOL,
    Script,
    WeakStore,
    ask,
    cause,
    check_durability,
    connect,
    store_errors,
)
from service.timestamps import rfc3339
from tests.service.stored import Stored, matrix
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio


async def fails_in_time(awaitable) -> StoreUnavailable:
    """Return the problem, which comes within a second although the store never answers."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await awaitable
    assert time.monotonic() - began < 30  # 0.8 s, plus the delay of a busy machine
    return caught.value


async def test_a_frozen_store_is_unavailable_within_a_second(own_store):
    """No connection waits longer than a second, and the store can be used again at once."""
    redis, fresh = await connect(own_store.url), await connect(own_store.url)
    stored = Stored(redis)
    await stored.make()
    own_store.signal(signal.SIGSTOP)
    try:
        problem = await fails_in_time(stored.buffer.ingest("pump", matrix(40)))
        assert problem.headers["Retry-After"]
        await fails_in_time(Stored(fresh).detectors.get("pump"))
        many = [fails_in_time(stored.detectors.get("pump")) for _ in range(100)]
        await asyncio.gather(*many)
    finally:
        own_store.signal(signal.SIGCONT)
    assert (await stored.get()).name == "pump"
    await redis.aclose()
    await fresh.aclose()


async def test_a_write_whose_outcome_is_unknown_is_not_repeated(own_store, own_redis):
    """A frozen store that received the command executes it once, later."""
    stored = Stored(own_redis)
    await stored.make()
    await stored.buffer.ingest("pump", matrix(1))
    own_store.signal(signal.SIGSTOP)
    await fails_in_time(stored.buffer.ingest("pump", matrix(40)))
    own_store.signal(signal.SIGCONT)
    assert (await stored.get()).buffered in (1, 41)


async def test_a_restarted_store_is_used_without_a_failure(own_store, own_redis):
    """Old connections are replaced and scripts are sent again, without an error."""
    stored = Stored(own_redis)
    await stored.make()
    await stored.buffer.ingest("pump", matrix(40))
    own_store.kill()
    await fails_in_time(stored.detectors.get("pump"))
    own_store.start()
    assert (await stored.buffer.ingest("pump", matrix(2))).buffered == 42


async def test_an_absent_store_is_unavailable_at_once(tmp_path):
    """A refused connection raises the same error as a store that does not answer."""
    redis = await connect(f"unix://{tmp_path}/nobody")
    await fails_in_time(Stored(redis).detectors.names())


@pytest.mark.parametrize(
    ("setting", "value", "normal"),
    [("min-replicas-to-write", "1", "0"), ("maxmemory", "1", "0")],
)
async def test_a_refused_write_leaves_the_store_unchanged(stored, redis, setting, value, normal):
    """Without memory or replicas a script is refused before its first write."""
    await stored.buffer.ingest("pump", matrix(40))
    await redis.config_set(setting, value)
    try:
        with pytest.raises(StoreUnavailable):
            await stored.buffer.ingest("pump", matrix(40))
        assert (await stored.get()).buffered == 40
    finally:
        await redis.config_set(setting, normal)
    assert (await stored.buffer.ingest("pump", matrix(1))).buffered == 41


async def test_a_read_only_replica_is_unavailable(own_redis):
    """READONLY is an error of the store, not of the request."""
    await Stored(own_redis).make()
    await own_redis.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="READONLY"):
        await Stored(own_redis).buffer.ingest("pump", matrix(1))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("maxmemory", "1", "refuses the command: OOM."),
        ("min-replicas-to-write", "1", "refuses the command: NOREPLICAS."),
        ("requirepass", "x", "refuses the command: NOAUTH."),
    ],
)
async def test_the_answer_names_why_the_store_refuses(own_redis, setting, value, words):
    """The errors of single commands, transactions and pipelines have the server's code."""
    await Stored(own_redis).make()
    await own_redis.config_set(setting, value)
    # A connection that needed no password keeps its right.
    await own_redis.connection_pool.disconnect()

    def pipelines():
        for transaction in (False, True):
            pipe = own_redis.pipeline(transaction=transaction)
            pipe.set("its name", "its secret value")
            yield pipe.execute()

    for call in (own_redis.set("a", "b"), *pipelines()):
        with pytest.raises(StoreUnavailable, match=words) as caught:
            await ask(own_redis, call)
        assert "secret" not in cause(caught.value)


@pytest.mark.parametrize("right", ["-evalsha -eval", "-time", "-xadd", "-@all +@read"])
async def test_a_user_with_few_rights_is_an_outage(own_redis, right):
    """A command that the user may not use, also inside a script, is refused by the store."""
    stored = Stored(own_redis)
    await stored.make()
    await own_redis.execute_command("ACL", "SETUSER", "default", *right.split())
    with pytest.raises(StoreUnavailable, match="refuses the command") as caught:
        await stored.buffer.ingest("pump", matrix(4))
    assert "user" in cause(caught.value).lower()


@pytest.mark.parametrize("right", ["-publish -subscribe", "resetchannels"])
async def test_a_change_without_its_notification_is_kept(own_redis, right):
    """A user who may not publish changes the store; others find the change by polling."""
    stored = Stored(own_redis)
    await own_redis.execute_command("ACL", "SETUSER", "default", *right.split())
    await stored.make()
    await stored.learn(40)
    assert (await stored.get()).champion == 1


@pytest.mark.parametrize(
    "words",
    [
        "ERR unknown command 'EVALSHA', with args beginning with: 'secret' ",
        "ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'",
        "ERR SELECT is not allowed in cluster mode",
        "NOTALLOWED command not supported",
    ],
)
async def test_a_server_without_scripts_is_an_outage(words):
    """If a proxy or an old server runs no scripts, the error has the server's own words."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(f"-{words}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        redis = await connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        with pytest.raises(StoreUnavailable, match="refuses the command") as caught:
            await ask(redis, redis.get("a"))
        assert words.removeprefix("ERR ")[:14] in cause(caught.value)
        assert "secret" not in caught.value.detail + cause(caught.value)
        await redis.aclose()


async def test_a_long_command_without_a_password_is_an_outage(own_redis):
    """Without a password a server refuses the length of a command before it reads the command."""
    await Stored(own_redis).make()
    await own_redis.config_set("requirepass", "x")
    await own_redis.connection_pool.disconnect()
    with pytest.raises(StoreUnavailable, match="unauthenticated"):
        await ask(own_redis, own_redis.mset({str(i): i for i in range(20)}))


async def test_a_busy_store_is_unavailable(own_store):
    """While another client's script runs for too long, a pipeline is refused, too."""
    redis, other = await connect(own_store.url), await connect(own_store.url, deadline=PATIENCE)
    await Stored(redis).make()
    await redis.config_set("busy-reply-threshold", "1")
    running = asyncio.create_task(other.eval("while true do end", 0))

    async def refused() -> bool:
        pipe = redis.pipeline(transaction=False)
        pipe.get("a")
        try:
            await ask(redis, pipe.execute())
        except StoreUnavailable as error:
            return error.detail == "The store refuses the command: BUSY."
        return False

    await until(refused)
    await redis.script_kill()
    await asyncio.gather(running, return_exceptions=True)
    await redis.aclose()
    await other.aclose()


async def test_a_failing_script_is_not_an_outage(redis):
    """A script that fails is a bug, and is not reported as an outage."""
    with pytest.raises(Exception, match="fails on purpose"):
        await Script("return redis.error_reply('ERR fails on purpose')")(redis, ())


async def test_a_lost_script_is_sent_again(redis):
    """A server that lost its scripts gets them again."""
    script = Script("return ARGV[1]")
    assert await script(redis, (), ("a",)) == b"a"
    await redis.script_flush()
    assert await script(redis, (), ("b",)) == b"b"


async def test_an_unanswered_call_is_abandoned_not_cancelled(store_url):
    """A call without an answer is abandoned; if it were cancelled, its connection could be lost."""
    redis = await connect(store_url)
    release, ended = asyncio.Event(), asyncio.Event()

    async def wait_for_release() -> None:
        await release.wait()
        ended.set()

    await fails_in_time(ask(redis, wait_for_release()))
    release.set()
    await asyncio.wait_for(ended.wait(), PATIENCE)
    await redis.aclose()


async def test_an_outage_leaves_the_pool_as_large_as_before(own_store, own_redis):
    """After hundreds of failed calls the pool has as many connections as before."""
    stored = Stored(own_redis)
    own_store.signal(signal.SIGSTOP)
    for _ in range(2):
        failed = await asyncio.gather(
            *(stored.detectors.names() for _ in range(200)), return_exceptions=True
        )
        assert all(isinstance(problem, StoreUnavailable) for problem in failed)
    own_store.signal(signal.SIGCONT)
    pool = own_redis.connection_pool

    async def all_calls_are_answered() -> bool:
        answers = await asyncio.gather(
            *(stored.detectors.names() for _ in range(200)), return_exceptions=True
        )
        # On a busy machine some of the answers are later than the deadline.
        late = any(isinstance(answer, StoreUnavailable) for answer in answers)
        return not late and not pool._in_use_connections

    await until(all_calls_are_answered)
    assert len(pool._available_connections) <= POOL


async def test_the_errors_of_a_subscription_are_translated():
    """A subscription fails with the same errors as a call."""
    with pytest.raises(StoreUnavailable):
        async with store_errors():
            raise ConnectionResetError


@pytest.mark.parametrize(
    ("setting", "value"),
    [("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")],
)
async def test_a_weak_store_is_refused_with_the_name_of_its_setting(own_redis, setting, value):
    """A store that can lose writes is refused by the setting's name, unless that is allowed."""
    assert await check_durability(own_redis) == ()
    await own_redis.config_set(setting, value)
    with pytest.raises(WeakStore, match=f"{setting} is {value}"):
        await check_durability(own_redis)
    assert len(await check_durability(own_redis, allow_weak=True)) == 1


async def test_a_store_that_hides_its_settings_counts_as_weak(own_redis):
    """A store that hides its settings counts as weak."""
    await own_redis.acl_setuser("default", commands=["-config"])
    with pytest.raises(WeakStore, match="hidden"):
        await check_durability(own_redis)


async def test_durability_is_not_judged_while_the_store_is_away(tmp_path):
    """A store that does not answer is not called weak."""
    redis = await connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await check_durability(redis, allow_weak=True)


def test_times_are_written_in_utc():
    """Times are RFC 3339 in UTC with milliseconds, or None."""
    assert rfc3339(0.25) == "1970-01-01T00:00:00.250Z"
    assert rfc3339(None) is None
