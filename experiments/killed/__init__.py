"""What it costs devices without a server or an edge that one of them is killed."""
