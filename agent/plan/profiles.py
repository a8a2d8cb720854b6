"""The profiles of one configuration, each resolved once; whose turn it is to say what the others leave open."""

from __future__ import annotations

from collections.abc import Mapping

from agent.plan import phase1, phase2
from agent.plan.model import Capabilities, ConfigurationView, RowRef, Verdict
from agent.plan.phase1 import IKE_PROFILES, Phase1
from agent.plan.phase2 import IPSEC_PROFILES, Phase2
from agent.plan.resolution import Resolution


class Profiles:
    """Resolved when asked for. `verdicts`: of the rows looked at that have something to say."""

    def __init__(self, configuration: ConfigurationView, capabilities: Capabilities) -> None:
        self._world = Resolution(configuration, capabilities)
        self._global1 = self._world.row(IKE_PROFILES, self._world.scalar("ipsecGlobIkeProfile"))
        self._global2 = self._world.row(IPSEC_PROFILES, self._world.scalar("ipsecGlobIpsecProfile"))
        self._phase1: dict[int, Phase1] = {}
        self._phase2: dict[int, Phase2] = {}

    @property
    def verdicts(self) -> Mapping[RowRef, Verdict]:
        return self._world.verdicts

    def phase1(self, profile: int) -> Phase1:
        """`profile`: ipsecPeerIkeProfile."""
        found = self._phase1.get(profile)
        if found is None:
            own = self._world.row(IKE_PROFILES, profile)
            found = self._phase1[profile] = phase1.resolve(self._world, own, self._global1)
        return found

    def phase2(self, rule_profile: int, peer_profile: int) -> Phase2:
        """`rule_profile`: ipsecTrProfile, `peer_profile`: ipsecPeerIpsecProfile."""
        number = rule_profile or peer_profile
        found = self._phase2.get(number)
        if found is None:
            own = self._world.row(IPSEC_PROFILES, number)
            found = self._phase2[number] = phase2.resolve(self._world, own, self._global2)
        return found
