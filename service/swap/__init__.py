"""Keeps memory equal to the store. Imports: `telemetry`, and all that it may import."""
