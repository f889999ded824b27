"""The processes that compute the runs of a study."""
