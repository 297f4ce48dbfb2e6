"""Drawings of the documentation: data flow, scan orders, charts."""
