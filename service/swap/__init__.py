"""Keeps memory equal to the store. Imports: what `telemetry` may, and `telemetry`."""
