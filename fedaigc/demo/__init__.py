"""`fedaigc demo`: collaborative training and generation, and a report page."""
