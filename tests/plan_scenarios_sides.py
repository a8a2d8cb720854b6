"""Scenarios of test_plan_oracle about the sides of rules: ranges, IPv6, outer addresses, DHCP, one interface."""

from __future__ import annotations

from tests.plan_scenarios import CALLS_US, Scenario, up

SIDES = [
    Scenario(
        "a range on one side: its ends, and what is next to them",
        {1: ["protect 10.1.0.0/16 10.2.0.3-10.2.0.9", "drop any any"]},
        """
        out 10.1.0.1 > 10.2.0.3 = peer1
        out 10.1.0.1 > 10.2.0.9 = peer1
        out 10.1.0.1 > 10.2.0.2 = drop
        out 10.1.0.1 > 10.2.0.10 = drop
        in 10.2.0.3 > 10.1.0.1 from 1 = ok
        in 10.2.0.9 > 10.1.0.1 = drop
        forward 10.1.0.5 > 10.2.0.7 = peer1
        forward 10.2.0.7 > 10.1.0.5 from 1 = plain
        forward 10.2.0.10 > 10.1.0.5 from 1 = drop
        """,
        default="pass",
    ),
    Scenario(
        "ranges on both sides, with the other gateway's tunnel up",
        {1: ["protect 10.1.0.5-10.1.0.14 10.2.0.3-10.2.1.4 udp/0/53"]},
        """
        out 10.1.0.5 > 10.2.0.3 udp/4000/53 = peer1
        out 10.1.0.14 > 10.2.1.4 udp/4000/53 = peer1
        out 10.1.0.15 > 10.2.1.4 udp/4000/53 = plain
        out 10.1.0.14 > 10.2.1.5 udp/4000/53 = plain
        out 10.1.0.14 > 10.2.1.4 udp/4000/54 = plain
        in 10.2.1.0 > 10.1.0.8 udp/53/4000 from 1 = ok
        in 10.2.1.0 > 10.1.0.8 udp/53/4000 = drop
        """,
        default="pass",
        tunnels={"peer-1-rule-101": up(1)},
    ),
    Scenario(
        "a drop rule of a range takes the rest: what the tunnel carries passes before it",
        {1: ["protect 10.1.0.0/24 10.2.0.0/24", "drop 10.0.0.0-10.1.200.255 10.1.128.0-10.3.5.5"]},
        """
        forward 10.1.0.5 > 10.2.0.9 = peer1
        forward 10.2.0.9 > 10.1.0.5 from 1 = plain
        forward 10.1.7.5 > 10.2.0.9 = drop
        forward 10.1.201.5 > 10.2.0.9 = plain
        """,
        default="pass",
    ),
    Scenario(
        "hub of ranges: spoke to spoke leaves encrypted",
        {1: ["protect 10.0.0.0/8 10.1.0.0-10.1.9.255"], 2: ["protect 10.0.0.0/8 10.2.0.0-10.2.9.255"]},
        """
        forward 10.1.0.5 > 10.2.0.9 from 1 = peer2
        forward 10.2.9.9 > 10.1.9.5 from 2 = peer1
        forward 10.1.0.5 > 10.2.0.9 = drop
        forward 10.1.10.5 > 10.2.0.9 = peer2
        forward 10.1.0.5 > 10.7.0.5 from 1 = plain
        """,
        default="pass",
    ),
    Scenario(
        "IPv6 rules beside IPv4 ones",
        {1: ["protect 2001:db8:1::/48 2001:db8:2::/48", "protect 10.1.0.0/16 10.2.0.0/16", "drop any6 any6"]},
        """
        out 2001:db8:1::1 > 2001:db8:2::9 = peer1
        in 2001:db8:2::9 > 2001:db8:1::1 from 1 = ok
        in 2001:db8:2::9 > 2001:db8:1::1 = drop
        forward 2001:db8:1::5 > 2001:db8:2::9 = peer1
        forward 2001:db8:2::9 > 2001:db8:1::5 from 1 = plain
        forward 2001:db8:2::9 > 2001:db8:1::5 = drop
        out 2001:db8:1::1 > 2001:db8:3::9 = drop
        out 10.1.0.1 > 10.2.0.9 = peer1
        out 10.1.0.1 > 10.3.0.9 = plain
        out 2001:db8::1 > ff02::1:ff00:2 icmp6/135/0 = plain
        in fe80::2 > 2001:db8::1 icmp6/136/0 = ok
        out 2001:db8:1::1 > 2001:db8:3::9 icmp6/128/0 = drop
        """,
        default="pass",
    ),
    Scenario(
        "IPv6: a range, a port, outbound only",
        {"pre": ["drop any6 2001:db8:2::3-2001:db8:2::9 tcp/0/22 outbound"]},
        """
        out 2001:db8::1 > 2001:db8:2::3 tcp/4000/22 = drop
        out 2001:db8::1 > 2001:db8:2::9 tcp/4000/22 = drop
        out 2001:db8::1 > 2001:db8:2::a tcp/4000/22 = plain
        out 2001:db8::1 > 2001:db8:2::2 tcp/4000/22 = plain
        out 2001:db8::1 > 2001:db8:2::9 tcp/4000/23 = plain
        in 2001:db8:2::9 > 2001:db8::1 tcp/22/4000 = ok
        forward 2001:db8:1::1 > 2001:db8:2::9 tcp/4000/22 = drop
        """,
        default="pass",
    ),
    Scenario(
        "own and peer: whatever the outer addresses are",
        {1: ["protect own peer tcp"], 2: ["pass own peer icmp"]},
        """
        out 192.0.2.1 > 198.51.100.1 tcp/4000/22 = peer1
        in 198.51.100.1 > 192.0.2.1 tcp/22/4000 from 1 = ok
        in 198.51.100.1 > 192.0.2.1 tcp/22/4000 = drop
        out 10.1.0.1 > 198.51.100.1 tcp/4000/22 = drop
        out 192.0.2.1 > 198.51.100.2 icmp = plain
        in 198.51.100.2 > 192.0.2.1 icmp = ok
        out 192.0.2.1 > 198.51.100.3 icmp = drop
        out 192.0.2.1 > 198.51.100.1 udp/500/500 = plain
        """,
    ),
    Scenario(
        "own address in the pre list, a peer's address there says nothing",
        {"pre": ["drop own 203.0.113.0/24", "drop any peer"]},
        """
        out 192.0.2.1 > 203.0.113.9 = drop
        in 203.0.113.9 > 192.0.2.1 = drop
        forward 10.1.0.5 > 203.0.113.9 = plain
        out 10.1.0.1 > 203.0.113.9 = plain
        out 192.0.2.1 > 198.51.100.1 = plain
        """,
        default="pass",
    ),
    Scenario(
        "the other gateway after it called: its address counts",
        {1: ["protect own peer", "drop any any"]},
        """
        out 192.0.2.1 > 198.51.100.1 = peer1
        in 198.51.100.1 > 192.0.2.1 from 1 = ok
        out 192.0.2.1 > 198.51.100.2 = drop
        """,
        peers={1: CALLS_US},
        tunnels={"peer-1-rule-101": up(1)},
    ),
    Scenario(
        "the other gateway before it called: what it would be is not known",
        {1: ["protect own peer", "drop any any"]},
        """
        out 192.0.2.1 > 198.51.100.1 = drop
        in 198.51.100.1 > 192.0.2.1 from 1 = drop
        """,
        peers={1: CALLS_US},
    ),
    Scenario(
        "DHCP of clients behind a tunnel",
        {1: ["protect any dhcp", "protect 10.1.0.0/16 10.2.0.0/16"]},
        """
        in 0.0.0.0 > 255.255.255.255 udp/68/67 from 1 = ok
        in 0.0.0.0 > 255.255.255.255 udp/68/67 = drop
        out 10.1.0.1 > 10.2.0.9 udp/67/68 = peer1
        out 10.1.0.1 > 10.3.0.9 udp/67/68 = peer1
        out 10.1.0.1 > 10.3.0.9 udp/68/67 = plain
        out 10.1.0.1 > 10.2.0.9 tcp/67/68 = peer1
        """,
        default="pass",
    ),
    Scenario(
        "a drop rule on one interface",
        {"pre": ["drop any 203.0.113.0/24 if2"]},
        """
        out 10.1.0.1 > 203.0.113.9 if >2 = drop
        out 10.1.0.1 > 203.0.113.9 if >3 = plain
        in 203.0.113.9 > 10.1.0.1 if 2> = drop
        in 203.0.113.9 > 10.1.0.1 if 3> = ok
        forward 203.0.113.9 > 10.1.0.5 if 2>3 = drop
        forward 203.0.113.9 > 10.1.0.5 if 3>2 = plain
        forward 10.1.0.5 > 203.0.113.9 if 3>2 = drop
        forward 10.1.0.5 > 203.0.113.9 if 2>3 = plain
        """,
        default="pass",
    ),
    Scenario(
        "what one interface protects, another drops",
        {1: ["protect 10.1.0.0/16 10.2.0.0/16 if2", "drop 10.1.0.0/16 10.2.0.0/16"]},
        """
        out 10.1.0.1 > 10.2.0.9 if >2 = peer1
        out 10.1.0.1 > 10.2.0.9 if >3 = drop
        in 10.2.0.9 > 10.1.0.1 from 1 if 2> = ok
        in 10.2.0.9 > 10.1.0.1 from 1 if 3> = drop
        in 10.2.0.9 > 10.1.0.1 if 2> = drop
        forward 10.1.0.5 > 10.2.0.9 if 3>2 = peer1
        forward 10.1.0.5 > 10.2.0.9 if 2>3 = drop
        forward 10.2.0.9 > 10.1.0.5 from 1 if 2>3 = plain
        forward 10.2.0.9 > 10.1.0.5 if 2>3 = drop
        """,
        default="pass",
    ),
    Scenario(
        "outbound on one interface, in both lists",
        {"pre": ["pass any any udp/0/53 outbound if3"], "post": ["drop any any inbound if2"]},
        """
        out 10.1.0.1 > 203.0.113.9 udp/4000/53 if >3 = plain
        out 10.1.0.1 > 203.0.113.9 udp/4000/53 if >2 = drop
        forward 10.1.0.5 > 203.0.113.9 udp/4000/53 if 3>3 = plain
        forward 10.1.0.5 > 203.0.113.9 udp/4000/53 if 2>3 = plain
        in 203.0.113.9 > 10.1.0.1 if 2> = drop
        """,
    ),
]
