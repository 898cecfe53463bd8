"""A version, its artifact and what it can do, without torch. Imports: ground, `parts`, `scores`."""
