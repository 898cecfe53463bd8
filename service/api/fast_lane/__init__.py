"""Plain score requests, answered without the framework."""
