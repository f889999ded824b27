"""fedaigc: federated learning for collaborative diffusion, on Flower."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # read late: it takes longer than the rest of `fedaigc --help`
    from importlib.metadata import version

    return version("fedaigc")
