"""Continuous batching: replies to many requests, generated together by one thread over one state."""
