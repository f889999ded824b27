"""The demo's page: one self-contained HTML file."""
