"""Curation of data sets: records that are kept, and their form in an output."""
