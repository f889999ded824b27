"""The server of a deployment: SuperLink, door, keys, and admission of connections and devices."""
