"""fedaigc: federated learning for collaborative diffusion, on Flower."""

from importlib.metadata import version

__version__ = version("fedaigc")
