"""The processes of one machine: how they are started, watched and stopped."""
