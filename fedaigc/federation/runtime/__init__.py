"""How a run is started: in this process, in a simulation, on a SuperLink."""
