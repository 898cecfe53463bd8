"""Scores, each a function of scaled vectors. Imports: ground, `parts`."""
