"""strongswan.conf of our private charon, and the names of the files in its run folder.

The run folder is bound over /run before charon starts (process.py), so the file that charon
insists on, /var/run/charon.pid, lies there and a charon of the host is not disturbed. All
names begin with `charon.` and are written as charon sees them, directly in /run: that is
what the distribution's AppArmor profile of charon admits. Options are strongSwan 5.9.8's;
all but those of AT_START and the plugin list take effect in a running charon by VICI
reload-settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.plan.daemon import NAT_T_PORT, DaemonSettings

INSIDE: Final = Path("/run")  # the run folder as charon sees it

CONF: Final = "charon.conf"
SOCKET: Final = "charon.vici"
LOG: Final = "charon.log"
PID: Final = "charon.pid"
LOCK: Final = "charon.lock"  # flock held by charon as long as it lives
OUTPUT: Final = "charon.out"  # what the launching shell and charon say before the log is open
STARTED: Final = "charon.started"  # what the one that runs was started with, of AT_START
LOADED: Final = "charon.loaded"  # journal of connections, see loaded.py

INITIATES: Final = 32  # at the same time; each occupies a thread of charon, and 7 to 120 ms of CPU
THREADS: Final = INITIATES + 16  # 16 is what charon has without us

RETRANSMIT_BASE: Final = 1.8
BLOCK_THRESHOLD: Final = 50  # charon's own are 5 half-open IKE SAs in 30 s
SEGMENTS: Final = 16  # locks of the table of IKE SAs, at most

PLUGINS: Final = (
    *("random", "nonce", "drbg"),
    *("pem", "pkcs1", "pkcs8", "x509", "constraints"),  # certificates and keys
    *("openssl", "gcrypt", "aes", "sha1", "sha2", "md5", "hmac", "kdf", "gmp"),  # gcrypt: twofish
    *("kernel-netlink", "socket-default", "vici"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What of strongswan.conf depends on the configuration. `plugins_before`: loaded ahead of the others, in tests a
    kernel interface that needs no kernel ESP."""

    aggressive_psk: bool = False  # some connection answers aggressive mode with a pre-shared key
    plugins_before: tuple[str, ...] = ()
    port: int = 500
    retransmit_tries: int = 10
    retransmit_timeout: float = 0.5  # seconds
    retransmit_limit: int = 30  # seconds, 0 for none
    half_open_timeout: int = 300  # seconds
    log_level: int = 1  # -1..3; 4 would write keys
    sa_lines: int = 256  # a power of two

    def of(self, daemon: DaemonSettings) -> Options:
        """These options with what the plan says of the daemon."""
        return replace(
            self,
            port=daemon.ike_port,
            retransmit_tries=daemon.retries,
            retransmit_timeout=daemon.first_milliseconds / 1000,
            retransmit_limit=daemon.longest_seconds,
            half_open_timeout=daemon.half_open_seconds,
            log_level=daemon.log_level,
            sa_lines=daemon.sa_lines,
        )


AT_START: Final[Mapping[str, str]] = {"port": "ipsecGlobIkePort", "sa_lines": "ipsecTuneSAIHashLines"}
"""Options that charon reads only when it starts, and the objects they come from."""

BEFORE_JOURNAL: Final = {"port": 500, "sa_lines": 1}
"""What a charon that left no STARTED file was started with."""


def give_up_seconds(options: Options) -> float:
    """How long charon waits for the answer to one message before it gives up."""
    gaps = (options.retransmit_timeout * RETRANSMIT_BASE**attempt for attempt in range(options.retransmit_tries + 1))
    return sum(min(gap, options.retransmit_limit) if options.retransmit_limit else gap for gap in gaps)


def render(folder: Path, options: Options) -> str:
    """The text of strongswan.conf. `folder`: the run folder as charon sees it, INSIDE unless it is not isolated."""
    return f"""\
# Written by ipsec-agent whenever it starts charon or an option changes; edits are lost.
charon {{
    load = {" ".join((*options.plugins_before, *PLUGINS))}
    threads = {THREADS}
    port = {options.port}
    port_nat_t = {NAT_T_PORT}
    ikesa_table_size = {options.sa_lines}
    ikesa_table_segments = {min(SEGMENTS, options.sa_lines)}
    half_open_timeout = {options.half_open_timeout}
    # of one address, of what a peer began and left: it stays ten times as long as with charon's own timeout, and a peer
    # that fails some times would be ignored
    block_threshold = {BLOCK_THRESHOLD}
    # names are written either way round
    rdn_matching = reordered
    # policies and addresses are the agent's
    install_routes = no
    install_virtual_ip = no
    # version 1 keeps the replaced SA until its hard lifetime otherwise
    delete_rekeyed = yes
    make_before_break = yes
    # twofish
    accept_private_algs = yes
    i_dont_care_about_security_and_use_aggressive_mode_psk = {_yes(options.aggressive_psk)}
    retransmit_tries = {options.retransmit_tries}
    retransmit_timeout = {options.retransmit_timeout}
    retransmit_base = {RETRANSMIT_BASE}
    retransmit_limit = {options.retransmit_limit}
    # nothing to the system's log: the agent reads this file, and its own log has a level of its own
    syslog {{
        daemon {{
            default = -1
        }}
        auth {{
            default = -1
        }}
    }}
    filelog {{
        agent {{
            path = {folder / LOG}
            time_format = %Y-%m-%dT%H:%M:%S
            ike_name = yes
            append = yes
            flush_line = yes
            default = {options.log_level}
        }}
    }}
    plugins {{
        vici {{
            socket = unix://{folder / SOCKET}
        }}
        kernel-netlink {{
            # 165 by default: so long one failed attempt silences further acquires
            xfrm_acq_expires = 5
        }}
    }}
}}
"""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
