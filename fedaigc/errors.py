"""The errors of this project."""


class Error(Exception):
    """Base of all errors that leave a function of this project on purpose: `except fedaigc.Error` catches them."""


class UserError(Error):
    """A user's mistake. The message names what was given, what was expected and what to do.

    The command line prints it and exits with status 2, without a traceback.
    """


class DamagedFile(UserError):
    """A file that the project wrote can no longer be read; the message names it."""


class NotFinite(UserError):
    """A model computed values that are not finite, such as NaN: nothing of them is kept."""


class Diverged(UserError):
    """Training ended with non-finite values on more than half of the clients."""


class PacketError(Error, ValueError):
    """A packet that is damaged, or not meant for this plan and model. The message names both values."""
