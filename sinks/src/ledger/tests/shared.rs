//! Runs that share a state on a server.
