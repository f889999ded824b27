"""Federations on separate machines: a server behind a proxy, and a resident agent on each device.

Nothing in here can be imported without the packages of the extra `server`.
"""

from fedaigc.extras import require_extra

require_extra("server", "separate machines")
