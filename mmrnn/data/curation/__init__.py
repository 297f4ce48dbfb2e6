"""Curation of data sets: what is kept of their records, and how kept records are written."""
