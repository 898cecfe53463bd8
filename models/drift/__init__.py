"""Pure functions that test whether traffic moved. Imports: no other subpackage."""
