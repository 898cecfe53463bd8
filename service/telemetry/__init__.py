"""Metrics and reports of an API process. Imports: ground, `domain`, `store`, `scoring`."""
