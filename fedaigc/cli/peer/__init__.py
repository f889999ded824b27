"""Commands of `fedaigc device` for devices that pair and share without a server."""
