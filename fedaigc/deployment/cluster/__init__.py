"""Clusters of paired devices that share without a server or an edge: every device plans, and all plan the same."""
