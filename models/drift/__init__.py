"""Pure functions that test whether traffic moved. Imports: nothing else of ours."""
