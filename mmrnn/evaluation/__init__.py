"""Evaluation: replies compared with references, baselines, and reports."""
