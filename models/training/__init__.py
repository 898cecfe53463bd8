"""Learns an experience into a calibrated version. Imports: all but `decisions`, `drift`."""
