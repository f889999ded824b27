"""What a study consists of: clients, rows, tuning, runs."""
