"""The client whose calls are awaited; every module follows from its namesake one folder up."""
