"""The error that a user can mend."""


class UserError(Exception):
    """A user's mistake: the message names what was given, what was expected and what to do.

    The command line prints it and exits with status 2, without a traceback.
    """


class DamagedFile(UserError):
    """A file that the project wrote cannot be read any more; the message names it."""


class Diverged(UserError):
    """Training ended with values that are not finite on more than half of the clients."""
