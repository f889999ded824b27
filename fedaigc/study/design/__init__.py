"""The design of a study: clients, rows, tuning and runs."""
