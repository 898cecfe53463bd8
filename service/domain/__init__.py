"""Values and pure rules: no await, no Redis, no HTTP. Imports: ground, `models` without torch."""
