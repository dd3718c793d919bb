"""The runtime: loads compiled programs, runs them on threads, keeps them in a cache."""
