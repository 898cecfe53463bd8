"""Processes of one machine, the embedded store. Imports: ground, `domain`, `store`."""
