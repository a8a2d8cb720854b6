"""The `Ike` protocol on our private charon.

A supervisor keeps a connection for events: it starts charon when there is none, adopts the
one that runs, and when it goes says so and brings it back. Commands go through a second
session, attempts to initiate through sessions of their own. Loading is journalled
(loaded.py), so an agent that adopts charon knows what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agent.backends.backoff import Backoff
from agent.backends.charon.attempts import LOADING_SECONDS, Attempt, Attempts
from agent.backends.charon.config import AT_START, LOADED, LOG, Options, give_up_seconds
from agent.backends.charon.loaded import Journal
from agent.backends.charon.logfile import LogFile
from agent.backends.charon.messages import sas_of, texts
from agent.backends.charon.process import STARTING_SECONDS, Daemon
from agent.backends.charon.vici import ANSWER_SECONDS, Channel, Listener, NotThere, plain
from agent.backends.engine import EngineError, IkeEvent, IkeEventKind, IkeListener, IkeSa, IkeState, Narrowed
from agent.backends.memory import credentials_fingerprint, settings_fingerprint
from agent.plan import numbers
from agent.plan.daemon import DaemonSettings
from agent.plan.model import Connection, Credential, CredentialKind, Secret, ViciValue

logger = logging.getLogger(__name__)

CREDENTIALS: Final = "credentials"  # in the journal, beside connections
UNKNOWN: Final = "?"  # there: nobody can tell what is loaded
AGGRESSIVE: Final = "-aggressive"  # ends the fingerprint of a connection that needs the option of that name
STEADY_SECONDS: Final = 10.0  # having lived so long, it is restarted at once
START_SECONDS: Final = 5.0  # so long the agent's start waits for it; policies must not wait longer
LOOK_SECONDS: Final = 10.0  # between two questions whether it still answers
ASK_AGAIN_SECONDS: Final = 1.0  # after one without an answer
MUTE_SECONDS: Final = 30.0  # alive but not answering for so long, it is killed
MUTE_QUESTIONS: Final = 3  # unanswered in that time, at least: it may have been us who were stopped
SILENCE: Final = (TimeoutError, BlockingIOError)  # the second: its queue of connections is full
LOG_SECONDS: Final = 60.0  # between two looks at the size of its log
TERMINATE_MILLISECONDS: Final = 2000  # for the peer to confirm; then the SA goes all the same
LATE_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # before ending again what goes on being tried
CONNECTING: Final = "CONNECTING"  # charon's word for an IKE SA that is not established yet
NOTHING_TO_END: Final = "no matching SAs to terminate found"

OpenSecret = Callable[[int, bytes], bytes]


class CharonIke:
    """`folder`: run folder; `open_secret(peer, sealed)`: a peer's pre-shared key, opened at the moment of loading;
    `open_key(number, sealed)`: the same of a row of ipsecPublicKeyTable. `prefix`: as of Daemon."""

    def __init__(
        self,
        folder: Path,
        open_secret: OpenSecret,
        *,
        open_key: OpenSecret | None = None,
        options: Options | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.daemon = Daemon(folder, prefix=prefix)
        self._open_secret = open_secret
        self._open_key = open_key or open_secret
        self._credentials: dict[str, Credential] = {}
        self._options = options or Options()
        self._journal = Journal(folder / LOADED)
        self._log = LogFile(folder / LOG)
        self._reading: asyncio.Task[None] | None = None
        self._listeners: list[IkeListener] = []
        self._identity = ""  # the life of charon that we last spoke with
        self._abandoned: dict[str, set[int]] = {}  # by connection, IKE SAs that an agent before us had begun
        self._unsure = True  # it may have other options than ours: somebody else started it
        self._there = asyncio.Event()
        self._tried = asyncio.Event()  # the first attempt to reach it is over
        self._loading = asyncio.Condition()
        self._backoff: Backoff[str] = Backoff(time.monotonic)
        self._supervisor: asyncio.Task[None] | None = None
        self._commands: Channel | None = None
        self._ending: Channel | None = None
        self._pulse: Channel | None = None  # its own: the others may wait for minutes
        self._attempts: Attempts | None = None

    # ---- life -------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns after START_SECONDS at the latest; the supervisor goes on with a charon that hangs."""
        self._tried.clear()
        self._commands = Channel("charon-commands", self.daemon.connect)
        self._ending = Channel("charon-terminate", self.daemon.connect)
        self._pulse = Channel("charon-pulse", self.daemon.connect, ANSWER_SECONDS)
        self._attempts = Attempts(
            self.daemon.connect, self._is_loaded, self._load_narrowed, self._give_up, self._tell, self._patience
        )
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise())
        self._log.wanted = self._options.log_level >= 0
        self._reading = asyncio.get_running_loop().create_task(self._log.run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._tried.wait()

    def _patience(self) -> float:
        return give_up_seconds(self._options) * 2 + STARTING_SECONDS

    async def stop(self) -> None:
        """charon and its tunnels go on. Waits for none of its answers."""
        self._there.clear()
        for task in (self._supervisor, self._reading):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(channel.close() for channel in self._channels()))
        tasks = [task for task in (self._supervisor, self._reading) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._attempts is not None:
            await self._attempts.stop()
        self._journal.close()
        self._there.clear()

    async def shutdown(self) -> None:
        """Stop, and end charon with all its tunnels."""
        await self.stop()
        await asyncio.to_thread(self.daemon.end)

    def subscribe(self, listener: IkeListener) -> None:
        self._listeners.append(listener)

    async def _supervise(self) -> None:
        mute_since: float | None = None
        while True:
            lived = 0.0
            try:
                listener = await self._reach()
            except Exception as error:  # a defect must not end supervision for good
                now = time.monotonic()
                known = isinstance(error, (EngineError, OSError))
                logger.error("charon cannot be reached: %s", error, exc_info=None if known else error)
                mute_since = now if mute_since is None else mute_since
                if now - mute_since > MUTE_SECONDS:
                    mute_since = None
                    with contextlib.suppress(OSError):
                        if await asyncio.to_thread(self.daemon.kill):
                            logger.error("charon was killed: no answer for %.0f s", MUTE_SECONDS)
                            self._backoff.forget("charon")
            else:
                mute_since = None
                begun = time.monotonic()
                watch = asyncio.get_running_loop().create_task(self._watch())
                try:
                    await asyncio.wait([listener.ended, watch], return_when=asyncio.FIRST_COMPLETED)
                    if listener.ended.done():
                        text = listener.ended.result()
                    else:
                        text = watch.result()
                        with contextlib.suppress(OSError):  # then the next attempt to reach it tells
                            await asyncio.to_thread(self.daemon.kill)
                finally:
                    self._there.clear()
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                    await listener.stop()
                lived = time.monotonic() - begun
                logger.warning("charon is gone: %s", text)
                self._tell(IkeEvent(IkeEventKind.LOST, text=text))
            self._tried.set()
            if lived > STEADY_SECONDS:
                self._backoff.forget("charon")
            else:
                await asyncio.sleep(self._backoff.failed("charon"))

    async def _watch(self) -> str:
        """While it is there: does it answer, is its log short enough? Ends, with a text, when it has to be killed."""
        answered = log_seen = time.monotonic()
        unanswered = 0
        while True:
            await asyncio.sleep(ASK_AGAIN_SECONDS if unanswered else LOOK_SECONDS)
            if await self._answers():
                answered, unanswered = time.monotonic(), 0
                if answered - log_seen >= LOG_SECONDS:
                    log_seen = answered
                    await self._shorten_log()
                continue
            unanswered += 1
            mute = time.monotonic() - answered
            logger.warning("charon does not answer, for %.0f s now", mute)
            if mute > MUTE_SECONDS and unanswered >= MUTE_QUESTIONS:
                return f"it did not answer for {mute:.0f} s and is killed"

    async def _answers(self) -> bool:
        if self._pulse is None:
            return False
        try:
            await self._pulse.call(lambda session: session.version())
        except NotThere as error:  # closed or refused: its end is told by the events; out of descriptors: our own fault
            return not isinstance(error.__cause__, SILENCE)
        except EngineError:
            return True  # a refusal is an answer
        return True

    async def _shorten_log(self) -> None:
        try:
            if self._pulse is not None and await asyncio.to_thread(self.daemon.log_set_aside):
                await self._pulse.call(lambda session: session.reload_settings())
        except (EngineError, OSError) as error:  # tried again at the next look
            logger.warning("charon's log cannot be set aside: %s", error)

    async def _reach(self) -> Listener:
        """Adopt or start it. Raises EngineError, OSError."""
        running = await asyncio.to_thread(self.daemon.alive)
        if not running:
            await asyncio.to_thread(self.daemon.start, self._options)
            self._unsure = False
        connection = await self._connect()
        identity = self.daemon.identity(connection)
        listener = Listener(connection, self._tell)
        await listener.start()
        restarted = not running or (bool(self._identity) and identity != self._identity)
        if running and identity != self._identity:
            self._unsure = True
        logger.info("charon %s (process %s)", "started" if not running else "adopted", identity.partition(":")[0])
        try:
            for channel in self._channels():
                await channel.reset()
            if running and identity != self._identity:
                self._abandoned = await self._being_tried()
            self._identity = identity
            self._journal.open(identity)
        except BaseException:
            await listener.stop()
            raise
        aggressive = any(text.endswith(AGGRESSIVE) for text in self._journal.fingerprints.values())
        self._options = replace(self._options, aggressive_psk=aggressive)
        self._there.set()
        self._tried.set()
        self._tell(IkeEvent(IkeEventKind.BACK, text="restarted" if restarted else ""))
        async with self._loading:
            self._loading.notify_all()
        return listener

    async def _connect(self) -> socket.socket:
        """A connection for events, closed should we be cancelled meanwhile."""
        connecting = asyncio.get_running_loop().run_in_executor(None, self.daemon.connect, ANSWER_SECONDS)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close)
            raise

    def _channels(self) -> list[Channel]:
        return [channel for channel in (self._commands, self._ending, self._pulse) if channel is not None]

    async def _being_tried(self) -> dict[str, set[int]]:
        """By connection, ids of IKE SAs that we are to establish, where none is. Raises EngineError."""
        found: dict[str, set[int]] = {}
        if self._commands is None:
            return found
        sas: tuple[IkeSa, ...] = await self._commands.call(_list_sas)
        there = {sa.connection for sa in sas if sa.state != CONNECTING}
        for sa in sas:
            if sa.initiator and sa.state == CONNECTING and sa.connection not in there:
                found.setdefault(sa.connection, set()).add(sa.unique_id)
        return found

    def _tell(self, event: IkeEvent) -> None:
        if self._attempts is not None:
            self._attempts.event(event)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # one listener's defect is not the others'
                logger.exception("a listener failed on %s", event.kind.value)

    async def _call(self, command: Callable[[Any], Any]) -> Any:
        if self._commands is None or not self._there.is_set():
            raise NotThere("charon is not there")
        return await self._commands.call(command)

    # ---- what it holds ----------------------------------------------------------------

    def fingerprint(self, connection: Connection) -> str:
        return self._fingerprint(connection.settings)

    def _fingerprint(self, settings: Mapping[str, ViciValue]) -> str:
        local = settings.get("local")
        by_key = not isinstance(local, Mapping) or local.get("auth") == "psk"
        aggressive = settings.get("aggressive") == "yes" and by_key
        return settings_fingerprint(settings) + (AGGRESSIVE if aggressive else "")

    async def observe(self) -> IkeState:
        names, secrets, sas = await self._call(_look)
        known = self._journal.fingerprints
        loaded = {name: known.get(name, "") for name in names}
        return IkeState(loaded, frozenset(secrets), sas, known.get(CREDENTIALS, ""))

    async def list_sas(self) -> tuple[IkeSa, ...]:
        """The IKE_SAs alone; costs less than `observe`."""
        found: tuple[IkeSa, ...] = await self._call(_list_sas)
        return found

    async def load_connection(self, connection: Connection) -> None:
        name, fingerprint = connection.name, self.fingerprint(connection)
        if fingerprint.endswith(AGGRESSIVE):
            await self._set_aggressive(True)
        if self._journal.fingerprints.get(name, fingerprint) != fingerprint:
            self._journal.loaded(name, "")  # should we die in between, the next agent loads it again
        message = {name: plain(connection.settings)}
        await self._call(lambda session: session.load_conn(message))
        self._journal.loaded(name, fingerprint)
        async with self._loading:
            self._loading.notify_all()

    async def unload_connection(self, name: str) -> None:
        try:
            await self._call(lambda session: session.unload_conn({"name": name}))
        except NotThere:
            raise
        except EngineError as error:
            logger.debug("unloading %s: %s", name, error)  # it was not loaded
        self._journal.loaded(name, "")
        if not any(text.endswith(AGGRESSIVE) for text in self._journal.fingerprints.values()):
            await self._set_aggressive(False)

    def credentials_fingerprint(self, credentials: Mapping[str, Credential]) -> str:
        return credentials_fingerprint(credentials)

    async def load_credentials(self, credentials: Mapping[str, Credential]) -> bool:
        wanted, known = credentials_fingerprint(credentials), self._journal.fingerprints.get(CREDENTIALS, "")
        if known == wanted:
            self._credentials = dict(credentials)
            return False
        held = self._credentials if known == credentials_fingerprint(self._credentials) else None
        cleared = held is None or any(credentials.get(id) != each for id, each in held.items())
        self._journal.loaded(CREDENTIALS, UNKNOWN)  # should we die in between
        if cleared or held is None:
            await self._call(lambda session: session.clear_creds())
            held = {}
        for id, each in credentials.items():
            if id not in held:
                await self._load_credential(each)
        self._credentials = dict(credentials)
        self._journal.loaded(CREDENTIALS, wanted)
        return cleared

    async def _load_credential(self, credential: Credential) -> None:
        """One that charon does not take is no reason to keep the others from it."""
        try:
            if credential.kind is CredentialKind.KEY:
                try:
                    key = self._open_key(credential.number, credential.sealed)
                except Exception as error:
                    raise EngineError("the private key cannot be opened with this key file") from error
                await self._call(lambda session: session.load_key({"type": "any", "data": key}))
            else:
                flag = "CA" if credential.kind is CredentialKind.AUTHORITY else "NONE"
                message = {"type": "X509", "flag": flag, "data": credential.pem}
                await self._call(lambda session: session.load_cert(message))
        except NotThere:
            raise
        except EngineError as error:
            logger.error("%s is not taken by charon: %s", credential.id, error)

    async def load_secret(self, secret: Secret) -> None:
        """Raises EngineError also when the sealed key cannot be opened."""
        try:
            key = self._open_secret(secret.peer, secret.sealed)
        except Exception as error:
            raise EngineError("the pre-shared key cannot be opened with this key file") from error
        message = {"id": secret.id, "type": "IKE", "data": key, "owners": list(secret.owners)}
        await self._call(lambda session: session.load_shared(message))

    async def unload_secret(self, id: str) -> None:
        try:
            await self._call(lambda session: session.unload_shared({"id": id}))
        except NotThere:
            raise
        except EngineError as error:
            logger.debug("unloading %s: %s", id, error)

    # ---- the daemon itself ------------------------------------------------------------

    async def configure(self, settings: DaemonSettings) -> str:
        options = self._options.of(settings)
        if self._commands is None:  # not started yet
            self._options = options
            return ""
        if not self._there.is_set():
            self._options = options
            raise NotThere("charon is not there")
        started = await asyncio.to_thread(self.daemon.started_with)
        if started["port"] != options.port:
            self._options = options  # what it is started with next
            logger.warning(
                "charon is started anew for ipsecGlobIkePort %d (it was %d); tunnels end", options.port, started["port"]
            )
            self._there.clear()
            await asyncio.to_thread(self.daemon.end)  # the supervisor brings it back
            raise NotThere("charon is being started anew for another port")
        if options != self._options or self._unsure:
            await self._set_options(options)
        waiting = [object_ for name, object_ in AT_START.items() if started[name] != getattr(options, name)]
        return f"{', '.join(waiting)}: from the next start of charon on" if waiting else ""

    async def _set_options(self, options: Options) -> None:
        """In its file, and read by it."""
        await asyncio.to_thread(self.daemon.write_options, options)
        await self._call(lambda session: session.reload_settings())
        self._options, self._unsure = options, False
        self._log.wanted = options.log_level >= 0

    async def _set_aggressive(self, wanted: bool) -> None:
        """Answering aggressive mode with a pre-shared key is off in charon unless somebody configured it."""
        if self._options.aggressive_psk != wanted:
            await self._set_options(replace(self._options, aggressive_psk=wanted))

    # ---- tunnels ------------------------------------------------------------------------

    async def initiate(self, child: str, connection: str, reason: str, narrowed: Narrowed | None = None) -> None:
        if self._attempts is None:
            raise NotThere("charon is not there")
        logger.info("initiating %s: %s", child, reason)
        await self._end_abandoned(connection)
        self._attempts.begin(connection, child, narrowed)

    async def _end_abandoned(self, connection: str) -> None:
        """What an agent before us began for it and charon still tries. A second phase 2 would wait in it for the same
        phase 1: with version 1 both come up at once, and of two that cross each end may keep another."""
        begun = self._abandoned.pop(connection, ())
        for sa in await self.list_sas() if begun else ():
            if sa.unique_id in begun and sa.state == CONNECTING:
                await self._request_end({"ike-id": str(sa.unique_id)})

    async def _load_narrowed(self, attempt: Attempt) -> str:
        """Have charon know the child of a flow for as long as it takes to begin with it: what it then negotiates keeps
        these settings, and the next load of the connection, for another flow, may do without. Not beside other
        settings than those it holds: they are somebody else's to load."""
        connection, settings = attempt.connection, attempt.narrowed() if attempt.narrowed is not None else None
        if settings is None:
            return f"the rule of {attempt.child} is gone"
        if self._journal.fingerprints.get(connection) != self._fingerprint(_without(settings, attempt.child)):
            return f"{connection} is being loaded anew"
        try:
            await self._call(lambda session: session.load_conn({connection: plain(settings)}))
        except EngineError as error:
            return str(error)
        return ""

    async def end_outdated(self, connection: str, child: str = "") -> None:
        if self._attempts is None or connection not in self._journal.fingerprints:  # gone: nothing to begin anew
            await self.terminate(connection=connection, child=child)
            return
        async with self._attempts.ending_outdated(connection, child) as goes_on:
            await self._end_tried(connection, child, goes_on)

    async def terminate(self, *, connection: str = "", child: str = "", ike_id: int = 0, child_id: int = 0) -> None:
        if connection and not child and self._attempts is not None:
            await self._end_tried(connection, child, self._attempts.given_up(connection))
        else:
            await self._terminate(connection=connection, child=child, ike_id=ike_id, child_id=child_id)

    async def _end_tried(self, connection: str, child: str, goes_on: Callable[[], bool]) -> None:
        """With what charon has taken in and not begun yet: at first that is nothing to end."""
        await self._terminate(connection=connection, child=child)
        for pause in LATE_PAUSES if goes_on() else ():
            await asyncio.sleep(pause)
            if not goes_on():
                break
            await self._terminate(connection=connection, child=child)

    async def _terminate(self, *, connection: str = "", child: str = "", ike_id: int = 0, child_id: int = 0) -> None:
        if child and not ike_id and not child_id:
            for number in await self._flows_of(child):
                await self._request_end({"child-id": str(number)})
            if not numbers.is_flow(child):
                await self._request_end({"child": child})
        elif child_id and not ike_id:
            await self._request_end({"child-id": str(child_id)})
        else:
            await self._request_end({"ike-id": str(ike_id)} if ike_id else {"ike": connection})

    async def _flows_of(self, child: str) -> list[int]:
        """Unique ids of the SAs of a flow, or of all flows of a child: charon knows them by other names."""
        names = ((each.name, each.unique_id) for sa in await self.list_sas() for each in sa.children)
        return [number for name, number in names if numbers.is_flow(name) and child in (name, numbers.rule_child(name))]

    async def _request_end(self, what: Mapping[str, str]) -> None:
        request = {"timeout": str(TERMINATE_MILLISECONDS), "force": "yes", **what}
        if self._ending is None or not self._there.is_set():
            raise NotThere("charon is not there")
        try:
            await self._ending.call(lambda session: list(session.terminate(request)))
        except NotThere:
            raise
        except EngineError as error:
            if NOTHING_TO_END not in str(error):
                logger.info("terminating %s: %s", request, error)

    async def renew(self, ike_id: int) -> None:
        if self._ending is None or not self._there.is_set():
            raise NotThere("charon is not there")
        try:
            await self._ending.call(lambda session: session.rekey({"ike-id": str(ike_id), "reauth": "yes"}))
        except NotThere:
            raise
        except EngineError as error:
            logger.info("renewing IKE SA %d: %s", ike_id, error)

    async def _give_up(self, connection: str, child: str) -> None:
        try:
            await self.terminate(connection=connection, child=child)
        except EngineError as error:
            logger.info("ending the attempt at %s: %s", connection, error)

    async def _is_loaded(self, connection: str) -> bool:
        """Waits a while for it to be."""
        try:
            async with asyncio.timeout(LOADING_SECONDS), self._loading:
                await self._loading.wait_for(lambda: self._there.is_set() and connection in self._journal.fingerprints)
        except TimeoutError:
            return False
        return True


def _without(settings: Mapping[str, ViciValue], child: str) -> Mapping[str, ViciValue]:
    children = settings["children"]
    assert isinstance(children, Mapping)
    return {**settings, "children": {name: each for name, each in children.items() if name != child}}


def _close(connecting: asyncio.Future[socket.socket]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def _look(session: Any) -> tuple[list[str], list[str], tuple[IkeSa, ...]]:
    names = texts(session.get_conns().get("conns", []))
    secrets = texts(session.get_shared().get("keys", []))
    return names, secrets, _list_sas(session)


def _list_sas(session: Any) -> tuple[IkeSa, ...]:
    return tuple(sa for message in session.list_sas() for sa in sas_of(_section(message)))


def _section(message: Any) -> Mapping[str, Any]:
    decoded: Mapping[str, Any] = texts(message)
    return decoded
