"""The SNMP shell: an SNMP manager for a person at a terminal, local or by SSH."""
