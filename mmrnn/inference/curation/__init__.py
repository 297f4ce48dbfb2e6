"""Curation of data sets by models: selection by features of images, and new captions."""
