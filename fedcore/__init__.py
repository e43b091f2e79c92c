"""fedcore: federated learning on medical images, orchestrated by workflows."""

__version__ = "0.1.0"
