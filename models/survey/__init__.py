"""The regimes that a training meets. Imports: ground, `parts`, `version`."""
