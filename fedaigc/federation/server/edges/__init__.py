"""The edges of a simulation: a stage between the server and the devices, in the process of the server."""
