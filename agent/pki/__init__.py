"""Certificates and keys: what is in a file, how it becomes rows of certTable and ipsecPublicKeyTable."""
