"""The SNMP agent: guard, codec, access, respond; pysnmp for SNMPv3."""
