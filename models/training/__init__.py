"""From an experience to a calibrated version. Imports: `models`, without `decisions`, `drift`."""
