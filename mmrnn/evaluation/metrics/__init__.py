"""Metrics: one function each, items -> score of every question and a summary."""
