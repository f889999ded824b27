"""fedaigc: federated learning for collaborative diffusion, on Flower."""

