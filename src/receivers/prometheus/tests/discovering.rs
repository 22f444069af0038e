//! Targets from files, servers and names.
