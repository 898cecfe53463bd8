"""Finds the regimes in a training's vectors. Imports: ground, `parts`, `version`."""
