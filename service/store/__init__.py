"""Everything that speaks Redis. Imports: ground, `domain`, ground and `parts` of `models`."""
