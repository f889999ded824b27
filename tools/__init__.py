"""Programs beside the package: they run, watch and attack deployments, and search for leaks."""
