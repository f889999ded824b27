"""The configuration of a run, on the server and as devices are sent it."""
