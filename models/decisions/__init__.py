"""Gate, evidence, admission, incidents: pure functions that decide, with numpy alone."""
