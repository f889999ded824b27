"""The configuration of a run: the server's full version and the part that devices receive."""
