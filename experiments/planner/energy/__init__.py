"""Energy of plans against the size of a group, for shared steps on an edge server or on a member."""
