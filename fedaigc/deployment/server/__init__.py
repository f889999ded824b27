"""The server of devices: SuperLink, door, keys, who may come in."""
