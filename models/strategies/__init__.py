"""Ways to learn an experience. Imports: ground, `parts`, `version`, `vae`."""
