"""Real processes, broken on purpose, and one checker that looks at them from the outside."""
