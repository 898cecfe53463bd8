"""Everything that speaks Redis. Imports: ground, `domain`, `models` (ground and `parts`)."""
