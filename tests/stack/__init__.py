"""Failover in the libraries of docs/in-your-stack.md. They need the extra `stack`."""
