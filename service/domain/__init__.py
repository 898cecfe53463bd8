"""Values and pure rules: no await, no store, no HTTP."""
