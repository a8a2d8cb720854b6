"""The standard MIBs that this agent serves beside its own, one file each."""
