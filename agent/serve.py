"""The running agent: store, SNMP, engines and monitor, started in the right order and ended cleanly.

The store comes first, since its lock keeps a second agent out; then SNMP, so that a
station is answered at once; then the engines, whose work shows in the apply states. At the
end SNMP goes first: what was answered is stored, and kernel and charon are left as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

from agent import __version__
from agent.backends import Engines, linux_engines, memory_engines
from agent.backends.engine import EngineError
from agent.backends.kernel_settings import HOST_OWN, KernelSettings
from agent.backends.links import probe as probe_links
from agent.backends.nftables import probe as probe_nftables
from agent.backends.reconcile import Reconciler
from agent.backends.sole import Sole
from agent.clear import Clearing, Commands, WizardLog
from agent.config import Endpoint, Settings
from agent.keysizes import clamp_key_sizes
from agent.mib import load_schema
from agent.monitor.constants import TwofishSizes, publish_constants
from agent.monitor.monitor import Monitor
from agent.oldnames import rijndael_is_aes
from agent.pki.imports import KINDS, CertificateImports
from agent.pki.uptodate import keep_uptodate
from agent.plan.capabilities import CHARON, MEMORY, probed
from agent.plan.model import Capabilities
from agent.seed import seed, seed_edits
from agent.setchecks import SetChecks
from agent.severity import SeverityFilter
from agent.snmp.identity import CONFIGURATION_FILE as SNMP_CONF
from agent.snmp.presence import announce, withdraw
from agent.snmp.server import SnmpServer, SnmpSettings
from agent.snmp.sockets import ListenError
from agent.ssh_service import SshError, answering_ssh
from agent.store.errors import Refused, StoreError
from agent.store.events import display
from agent.store.exchange import exchanging
from agent.store.secrets import Secrets
from agent.store.store import Store
from agent.systemd import Notifier, log_format
from agent.telling import telling

logger = logging.getLogger("agent")

CHARON_FOLDER = "charon"  # in the state folder
STATUS, LAST_REFUSAL = "ipsecGwStatus", "ipsecGwLastRefusal"


class StartError(Exception):
    """The agent cannot start; the text says why and what to do."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_format(sys.stderr))
    urgent = SeverityFilter()
    handler.addFilter(urgent)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    asyncio.run(_serve(settings, Notifier(), urgent))


async def _serve(settings: Settings, notifier: Notifier, urgent: SeverityFilter) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(notifier.end)
        notifier.status("opening the store")
        store = await stack.enter_async_context(_opened(settings))
        publish_constants(store.live)
        store.subscribe(TwofishSizes(store.live), replay=True)
        store.expanders.extend((clamp_key_sizes, rijndael_is_aes))
        await _seeded(store)
        store.subscribe(urgent, replay=True)
        engines = make_engines(settings, store.secrets)
        capabilities = capabilities_here(settings.backend)
        reconciler = Reconciler(
            store,
            store.schema,
            engines.spd,
            engines.ike,
            engines.host,
            capabilities,
            filter=engines.filter,
            links=engines.links,
        )
        store.checks.append(SetChecks(reconciler, engines.host, capabilities, settings.listen))
        store.expanders.append(Clearing(seed_edits(store.schema)))
        store.commanded.append(Commands(WizardLog(store.live), reconciler.look_at_everything))
        exchange = await stack.enter_async_context(exchanging(store, settings.state, refusal_teller(store)))
        exchange.imports.importers.update(dict.fromkeys(KINDS, CertificateImports(store)))
        server = await stack.enter_async_context(_answering(settings, store))
        store.keep_copies()
        await stack.enter_async_context(telling(store, server))
        await stack.enter_async_context(_reachable(settings, store, server))
        damaged = store.damaged
        if damaged:  # it answers, and waits for a manager to accept the copy
            _ready(notifier, settings, store, server)
        if await _sound(store, ended):
            await stack.enter_async_context(_dated(store))
            await stack.enter_async_context(_made_real(settings.backend, store, engines, reconciler))
        if not damaged:
            _ready(notifier, settings, store, server)
        gc.collect()
        gc.freeze()  # what is loaded stays; collections then look at what is new only
        await ended.wait()
        notifier.stopping("ending; policies and tunnels stay as they are")
        await server.stop()
        logger.info("ending; policies and tunnels stay as they are")


def _ready(notifier: Notifier, settings: Settings, store: Store, server: SnmpServer) -> None:
    where = ", ".join(str(Endpoint(*address)) for address in server.addresses)
    notifier.ready(f"answers on {where}, backend {settings.backend}, generation {store.running.generation}")
    notifier.watch()


@contextlib.asynccontextmanager
async def _dated(store: Store) -> AsyncIterator[None]:
    """Certificates grow old."""
    task = asyncio.get_running_loop().create_task(keep_uptodate(store), name="certUptodate")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    try:
        store = Store.open(load_schema(), settings.store, settings.state)
    except StoreError as error:
        raise StartError(str(error)) from None
    try:
        yield store
    finally:
        await store.close()


async def _seeded(store: Store) -> None:
    try:
        await seed(store)
    except Refused as refused:
        raise StartError(f"the first rows could not be stored: {refused.text}") from None


async def _sound(store: Store, ended: asyncio.Event) -> bool:
    """Until the store is sound: an older copy makes no policy and no tunnel. False where the agent is to end first."""
    waiting = [asyncio.ensure_future(one) for one in (store.sound(), ended.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
    return not store.damaged


def make_engines(settings: Settings, secrets: Secrets) -> Engines:
    """The engines of the backend chosen."""
    if settings.backend == "memory":
        return memory_engines()

    def open_secret(peer: int, sealed: bytes) -> bytes:
        return secrets.open("ipsecPeerTable", peer, "ipsecPeerPreSharedKeyData", sealed)

    def open_key(number: int, sealed: bytes) -> bytes:
        return secrets.open("ipsecPublicKeyTable", number, "ipsecGwPublicKeyData", sealed)

    return linux_engines(settings.state / CHARON_FOLDER, open_secret, open_key)


def capabilities_here(backend: str) -> Capabilities:
    """What the backend can do on this machine."""
    if backend == "memory":
        return MEMORY
    return probed(CHARON, nftables=probe_nftables(), interfaces=probe_links())


def refusal_teller(store: Store) -> Callable[[str], None]:
    """Who shows the text of what was refused last."""

    def refused(text: str) -> None:
        store.live.update(STATUS, {0: {LAST_REFUSAL: display(text)}})

    return refused


@contextlib.asynccontextmanager
async def _answering(settings: Settings, store: Store) -> AsyncIterator[SnmpServer]:
    server = SnmpServer(
        store,
        store.schema,
        SnmpSettings(
            listen=settings.listen,
            state=settings.state,
            read_community=settings.read_community or None,
            write_community=settings.write_community or None,
        ),
        refused=refusal_teller(store),
    )
    try:
        await server.start()
        announce(settings.state, server.addresses, settings.backend)
    except (ListenError, StoreError, Refused, OSError) as error:
        raise StartError(str(error)) from None
    where = ", ".join(str(Endpoint(*address)) for address in server.addresses)
    logger.info("ipsec-agent %s answers on %s, backend %s", __version__, where, settings.backend)
    if (settings.state / SNMP_CONF).exists():  # made at the first start, with the user admin; it may be taken away
        print(f"To look at everything, as the user admin:\n  {server.walk_command}", flush=True)
    try:
        yield server
    finally:
        withdraw(settings.state)
        await server.stop()


@contextlib.asynccontextmanager
async def _reachable(settings: Settings, store: Store, server: SnmpServer) -> AsyncIterator[None]:
    """The shell over SSH, where it is asked for."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(answering_ssh(settings, store.schema, server, store.events))
        except SshError as error:
            raise StartError(str(error)) from None
        yield


@contextlib.asynccontextmanager
async def _made_real(backend: str, store: Store, engines: Engines, reconciler: Reconciler) -> AsyncIterator[None]:
    monitor = Monitor(
        store,
        store.schema,
        engines.ike,
        engines.spd,
        tunnels_changed=reconciler.environment_changed,
        lookout=engines.lookout,
        list_sas=engines.ike.list_sas,
    )
    reconciler.subscribe(monitor.planned)
    reconciler.peer_states.on_takeover(lambda peer: monitor.peers.dial(peer, "a peer it stands for"))
    host_settings = None
    if backend == "linux":
        host_settings = KernelSettings(store.numbers(HOST_OWN), partial(store.remember, HOST_OWN))
    store.actions.register(monitor.endings)
    try:
        sole = Sole() if backend == "linux" else None
        await reconciler.start()
        await engines.lookout.start()
    except EngineError as error:
        raise StartError(f"backend: {error}") from None
    await monitor.start()
    if host_settings is not None:
        store.subscribe(host_settings, replay=True)
        host_settings.start()
    try:
        yield
    finally:
        if host_settings is not None:
            await host_settings.stop()
        await monitor.stop()
        await engines.lookout.stop()
        await reconciler.stop()
        if sole is not None:
            sole.release()
