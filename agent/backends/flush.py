"""Taking away all that is ours, and nothing else: `ipsec-agent flush`, for who leaves."""

from __future__ import annotations

from agent.backends.engine import EngineError, Ike, Spd
from agent.backends.leftovers import Leftovers
from agent.backends.policies import show_selector
from agent.plan import numbers


async def flush(spd: Spd, ike: Ike) -> tuple[int, int]:
    """Remove our policies, connections and secrets, end our tunnels, and touch nothing else; how many policies and
    connections went. The engines are started by the caller. Raises EngineError for what cannot be removed."""
    held = {key: each for key, each in (await spd.observe()).items() if each.ours}
    ours, leftovers = list(held), Leftovers(spd, ike)
    for each in held.values():
        leftovers.named(each.templates)
    failed = await spd.apply(ours, [])
    state = await ike.observe()
    connections = {*filter(numbers.is_our_connection, state.connections)}
    tunnels = {sa.connection for sa in state.sas if numbers.is_our_connection(sa.connection)}
    for name in sorted(connections):
        await ike.unload_connection(name)
    for name in sorted(connections | tunnels):
        await ike.terminate(connection=name)
    for id in sorted(filter(numbers.is_our_secret, state.secrets)):
        await ike.unload_secret(id)
    if state.credentials:
        await ike.load_credentials({})
    for sa in await spd.sas():  # of a charon that was killed, too
        if leftovers.is_ours(sa):
            await spd.delete_sa(sa)
    if failed:
        key, text = next(iter(failed.items()))
        raise EngineError(f"{len(failed)} policies stay, the first is {show_selector(key.selector)}: {text}")
    return len(ours), len(connections)
