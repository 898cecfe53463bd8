"""Pure functions that decide about data and candidates. Imports: ground, `parts`, `version`."""
