"""Brokers move publications between nodes and keep the recent window of each channel."""
