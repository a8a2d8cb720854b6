"""A resolver that is away delays names, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import NoReturn

import pytest

from agent.backends.host import LinuxHost

AWAY = """
import asyncio, socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(600)
from agent.backends.host import LinuxHost

async def main():
    looking = asyncio.create_task(LinuxHost().resolve("gate.example"))
    await asyncio.sleep(0.2)
    looking.cancel()

asyncio.run(main())
"""


async def test_other_work_finds_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A charon that died is started in one."""
    back = threading.Event()

    def away(*_: object, **__: object) -> NoReturn:
        back.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    host = LinuxHost()
    looking = [asyncio.create_task(host.resolve(f"gate{number}.example")) for number in range(100)]
    try:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):  # the resolver is away for a minute
            assert await asyncio.to_thread(threading.get_ident)
        assert threading.active_count() < 30, "they are bounded"
    finally:
        back.set()
    assert set(await asyncio.gather(*looking)) == {()}


def test_the_agent_ends_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", AWAY], check=True, timeout=120)


async def test_an_answer_is_given_however_many_ask() -> None:
    host = LinuxHost()
    found = await asyncio.gather(*(host.resolve("localhost") for _ in range(50)))
    assert len(set(found)) == 1 and bytes([127, 0, 0, 1]) in found[0]
    assert await host.resolve("a" * 300) == () and await host.resolve("\udcff.example") == ()
