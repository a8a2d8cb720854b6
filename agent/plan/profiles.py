"""The profiles of one configuration, each resolved once; whose turn it is to say what the others leave open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.plan import ikev2, phase1, phase2
from agent.plan.certificates import Certificates
from agent.plan.ikev2 import IKEV2_PROFILES
from agent.plan.model import Capabilities, ConfigurationView, RowRef, Verdict
from agent.plan.phase1 import IKE_PROFILES, Phase1
from agent.plan.phase2 import IPSEC_PROFILES, Phase2
from agent.plan.proposals import V1, V2
from agent.plan.resolution import Resolution, first

MTU_BUILT_IN: Final = 1418
MTU_LEAST: Final = 214


class Profiles:
    """Resolved when asked for. `verdicts`: of the rows looked at that have something to say."""

    def __init__(self, configuration: ConfigurationView, capabilities: Capabilities) -> None:
        self._world = Resolution(configuration, capabilities)
        self._global1 = self._world.row(IKE_PROFILES, self._world.scalar("ipsecGlobIkeProfile"))
        self._global1_v2 = self._world.row(IKEV2_PROFILES, self._world.scalar("ipsecGlobContIkev2Profile"))
        self._global2 = self._world.row(IPSEC_PROFILES, self._world.scalar("ipsecGlobIpsecProfile"))
        self._phase1: dict[tuple[int, int, int], Phase1] = {}
        self._phase2: dict[tuple[int, int], Phase2] = {}

    @property
    def certificates(self) -> Certificates:
        return self._world.certificates

    @property
    def verdicts(self) -> Mapping[RowRef, Verdict]:
        return self._world.verdicts

    def phase1(self, profile: int, version: int = V1, method: int = 0) -> Phase1:
        """`profile`: ipsecPeerIkeProfile, `version`: ipsecPeerIkeVersion, which says of which table; `method`:
        ipsecPeerAuthMethod, for IKEv2 only."""
        key = (profile, version, method if version == V2 else 0)
        found = self._phase1.get(key)
        if found is None:
            if version == V2:
                own = self._world.row(IKEV2_PROFILES, profile)
                found = ikev2.resolve(self._world, own, self._global1_v2, method)
            else:
                found = phase1.resolve(self._world, self._world.row(IKE_PROFILES, profile), self._global1)
            self._phase1[key] = found
        return found

    def mtu(self, profile: int, version: int = V1) -> int:
        """Largest packet into a tunnel of peers with this profile, in octets (ikePrfMtuMax, ikev2PrfMtuMax)."""
        table, column, global_ = (
            (IKEV2_PROFILES, "ikev2PrfMtuMax", self._global1_v2)
            if version == V2
            else (IKE_PROFILES, "ikePrfMtuMax", self._global1)
        )
        return max(MTU_LEAST, first((self._world.row(table, profile), global_), column, (0,), MTU_BUILT_IN))

    def phase2(self, rule_profile: int, peer_profile: int, version: int = V1) -> Phase2:
        """`rule_profile`: ipsecTrProfile, `peer_profile`: ipsecPeerIpsecProfile."""
        key = (rule_profile or peer_profile, version)
        found = self._phase2.get(key)
        if found is None:
            own = self._world.row(IPSEC_PROFILES, key[0])
            found = self._phase2[key] = phase2.resolve(self._world, own, self._global2, version)
        return found
