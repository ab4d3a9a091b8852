"""Open streams of server-sent events: one thread and one Redis connection for all of them, however many."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from services.common.events import channel_of
from services.inference.errors import TooManyStreams
from services.inference.event_text import HEARTBEAT, Standing, Told, end, news, preview
from services.inference.states import Status

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 10.0  # at the truth, while Redis brings events
LOOK_SECONDS_WITHOUT_REDIS = 1.0
RECONNECT_SECONDS = 0.5
SUBSCRIBE_SECONDS = 1.0
MOST_UNSENT_BYTES = 256 * 1024  # of a client that does not read
NOBODY = ""  # whose channel keeps the connection subscribed

Look = Callable[[list[str]], dict[str, Standing]]


@dataclass(frozen=True)
class StreamLimits:
    """How many streams one process keeps open, and for how long."""

    most: int
    most_per_user: int
    seconds: float


class Stream(asyncio.Protocol):
    """One listener; it writes once its socket is handed over, and notes what happens before."""

    def __init__(self, job_id: str, user: str, ends_at: float) -> None:
        self.job_id = job_id
        self.user = user
        self.ends_at = ends_at
        self.told = Told()
        self.listens = threading.Event()
        self.missed = False
        self.heard_at = 0.0  # when an event came last
        self.on_lost: Callable[[Stream], None] = lambda _: None
        self._chunked = False
        self._transport: asyncio.Transport | None = None

    def begin(self, transport: asyncio.Transport, chunked: bool) -> None:
        """Write from now on."""
        self._transport, self._chunked = transport, chunked

    def tell(self, standing: Standing, position: int | None = None) -> None:
        """Say what is new about the job, and end with its end."""
        if self._transport is None:
            self.missed = True
        elif not (self.told.status and Status(self.told.status).is_final):
            if Status(standing["status"]).is_final:
                self.told.status = standing["status"]
                self.write(end(standing))
                self.finish()
            else:
                self.write(news(self.told, standing, position))

    def write(self, text: bytes) -> None:
        """Send events; a client that does not read them is let go."""
        if self._transport is None or not text:
            return
        self._transport.write(b"%X\r\n%s\r\n" % (len(text), text) if self._chunked else text)
        if self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self._transport.abort()

    def offer(self, text: bytes) -> None:
        """Send what a client may miss: one that is still behind does not get it."""
        if self._transport is not None and not self._transport.get_write_buffer_size():
            self.write(text)

    def finish(self) -> None:
        """End the stream in good order."""
        if self._transport is not None:
            if self._chunked:
                self._transport.write(b"0\r\n\r\n")
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or the stream has ended."""
        self.on_lost(self)


class Streams:
    """Brings the events of jobs to listeners; MongoDB is looked at for all of them together, now and then."""

    def __init__(self, redis_url: str, look: Look, limits: StreamLimits) -> None:
        self._redis_url = redis_url
        self._look = look
        self._limits = limits
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users: Counter[str] = Counter()
        self._streams: defaultdict[str, set[Stream]] = defaultdict(set)
        self._pubsub: Any = None
        self._subscribed: set[str] = set()
        self._suspects: set[str] = set()
        self._look_now: asyncio.Event

    # called by request threads

    def open(self, job_id: str, user: str, make: Callable[[str, str, float], Stream] = Stream) -> Stream:
        """A stream that hears of the job from now on. Raises TooManyStreams."""
        stream = make(job_id, user, time.monotonic() + self._limits.seconds)
        stream.on_lost = self._forget
        loop = self._count(user)
        asyncio.run_coroutine_threadsafe(self._add(stream), loop)
        stream.listens.wait(SUBSCRIBE_SECONDS)
        return stream

    def hand_over(
        self, stream: Stream, client: socket.socket, chunked: bool, standing: Standing, position: int | None
    ) -> None:
        """Let the stream write to the client, how the job stands first; the socket is the stream's now."""
        assert self._loop is not None
        attach = self._attach(stream, client, chunked, standing, position)
        asyncio.run_coroutine_threadsafe(attach, self._loop)

    def close(self, stream: Stream) -> None:
        """Forget a stream that was not handed over."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._forget, stream)

    @property
    def count(self) -> int:
        """How many are open."""
        return self._users.total()

    def _count(self, user: str) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._users.total() >= self._limits.most or self._users[user] >= self._limits.most_per_user:
                raise TooManyStreams(self._users[user])
            self._users[user] += 1
            if self._loop is None:  # not earlier: gunicorn forks after the application is made
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="streams", daemon=True).start()
            return self._loop

    # inside the loop's thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._look_now = asyncio.Event()
        tasks = [loop.create_task(work()) for work in (self._listen, self._keep_looking, self._beat)]
        loop.run_until_complete(asyncio.gather(*tasks))

    async def _add(self, stream: Stream) -> None:
        self._streams[stream.job_id].add(stream)
        channel = channel_of(stream.job_id)
        if self._pubsub is None or channel in self._subscribed:
            stream.listens.set()
            return
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.subscribe(channel)

    async def _attach(
        self, stream: Stream, client: socket.socket, chunked: bool, standing: Standing, position: int | None
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: stream, sock=client)
        except OSError:
            client.close()
            self._forget(stream)
            return
        stream.begin(transport, chunked)
        stream.tell(standing, position)
        if stream.missed:
            self._suspect([stream.job_id])

    def _suspect(self, job_ids: Iterable[str]) -> None:
        """Look at the truth about these jobs soon."""
        self._suspects.update(job_ids)
        self._look_now.set()

    def _forget(self, stream: Stream) -> None:
        listeners = self._streams[stream.job_id]
        if stream in listeners:
            listeners.discard(stream)
            with self._lock:
                self._users[stream.user] -= 1
                if not self._users[stream.user]:
                    del self._users[stream.user]
        if not listeners:
            del self._streams[stream.job_id]
            asyncio.get_running_loop().create_task(self._unsubscribe(stream.job_id))

    async def _unsubscribe(self, job_id: str) -> None:
        if self._pubsub is not None and job_id not in self._streams:
            self._subscribed.discard(channel_of(job_id))
            with contextlib.suppress(RedisError, OSError):
                await self._pubsub.unsubscribe(channel_of(job_id))

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(
            self._redis_url, socket_connect_timeout=2, socket_keepalive=True
        )
        while True:
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(channel_of(NOBODY))
                    self._pubsub = pubsub  # before the others: who comes from here on subscribes itself
                    if self._streams:
                        await pubsub.subscribe(*map(channel_of, self._streams))
                    self._suspect(self._streams)  # of what nobody told meanwhile
                    async for message in pubsub.listen():
                        self._hear(message)
            except (RedisError, OSError) as failure:
                if self._pubsub is not None:
                    log.warning("no events from Redis", extra={"failure": type(failure).__name__})
            self._pubsub = None
            self._subscribed.clear()
            self._look_now.set()
            await asyncio.sleep(RECONNECT_SECONDS)

    def _hear(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        job_id = channel.removeprefix(channel_of(NOBODY))
        listeners = self._streams.get(job_id, set())
        if message["type"] == "subscribe":
            self._subscribed.add(channel)
            for stream in listeners:
                stream.listens.set()
        elif message["type"] == "message" and listeners:
            self._pass_on(json.loads(message["data"]), job_id, listeners)

    def _pass_on(self, event: dict[str, Any], job_id: str, listeners: set[Stream]) -> None:
        if "preview" in event:
            text = preview(event["preview"])
            for stream in listeners:
                stream.offer(text)
        elif Status(event["status"]).is_final:
            self._suspect([job_id])  # the truth says how it ended
        else:
            for stream in listeners:
                stream.heard_at = time.monotonic()
                stream.tell(event)

    async def _keep_looking(self) -> None:
        """At what is suspected to have changed at once, at everything now and then; one query at a time."""
        look_at_all = time.monotonic()
        while True:
            live = self._pubsub is not None
            pause = LOOK_SECONDS if live else LOOK_SECONDS_WITHOUT_REDIS
            with contextlib.suppress(TimeoutError):
                left = min(look_at_all - time.monotonic(), pause)
                await asyncio.wait_for(self._look_now.wait(), max(left, 0))
            self._look_now.clear()
            suspects, self._suspects = self._suspects, set()
            if time.monotonic() >= look_at_all or not live:
                suspects = set(self._streams)
                look_at_all = time.monotonic() + pause
            if suspects and not await self._tell_the_truth(suspects):
                await asyncio.sleep(LOOK_SECONDS_WITHOUT_REDIS)
                self._suspect(suspects)

    async def _tell_the_truth(self, job_ids: set[str]) -> bool:
        """Whether it could be had. The query may wait for a primary, which is not this thread's time."""
        asked_at = time.monotonic()
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, self._look, list(job_ids))
        except Exception as failure:
            log.warning("the jobs could not be looked at", extra={"failure": type(failure).__name__})
            return False
        for job_id in job_ids:
            standing = found.get(job_id, {"status": Status.DELETED})
            for stream in list(self._streams.get(job_id, ())):
                # An event that came meanwhile is newer; one that came before was written before it was told.
                if stream.heard_at < asked_at or Status(standing["status"]).is_final:
                    stream.tell(standing)
        return True

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            current = time.monotonic()
            for stream in [one for listeners in self._streams.values() for one in listeners]:
                if stream.ends_at < current:
                    stream.finish()  # the client comes back, and is asked again who it is
                    self._forget(stream)
                else:
                    stream.write(HEARTBEAT)
