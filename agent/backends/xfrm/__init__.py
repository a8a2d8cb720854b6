"""The kernel's XFRM netlink: declared structures, messages made of them, and the socket that carries them.

No Python library speaks it. `structures` are tables of named fields, `messages` turn
them into the plan's data and back, `netlink` sends and receives. Nothing here decides
anything.
"""
