"""The MIB: compiled modules and traits as one schema, and the encoding of its values."""

from agent.mib.compiled import load_schema
from agent.mib.schema import Column, Schema, Table

__all__ = ["Column", "Schema", "Table", "load_schema"]
