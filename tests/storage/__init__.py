"""Tests of failover.storage."""
