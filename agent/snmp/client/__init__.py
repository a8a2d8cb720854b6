"""A small SNMP manager on the agent's own codec; for the command line, the shell and the Setup Tool."""

from agent.snmp.client.client import SnmpClient
from agent.snmp.client.configuration import read_configuration
from agent.snmp.client.credentials import Community, Credentials, UsmUser, user_of_passphrases
from agent.snmp.client.errors import CredentialsError, NoAnswer, Reported, RequestFailed, SnmpError, UnknownName
from agent.snmp.client.names import Missing, Tlv, Variable, parse_value

__all__ = [
    "Community",
    "Credentials",
    "CredentialsError",
    "Missing",
    "NoAnswer",
    "Reported",
    "RequestFailed",
    "SnmpClient",
    "SnmpError",
    "Tlv",
    "UnknownName",
    "UsmUser",
    "Variable",
    "parse_value",
    "read_configuration",
    "user_of_passphrases",
]
