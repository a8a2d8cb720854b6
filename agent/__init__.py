"""A Linux IPsec gateway configured and watched by SNMP."""

__version__ = "0.1.0"
