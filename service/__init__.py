"""The running system: API, worker, store adapters, drift monitor and command line."""
