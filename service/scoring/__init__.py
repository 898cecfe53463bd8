"""Turns request bodies into replies. Imports: ground, `domain`, `models` without torch."""
