"""Search in a folder of images by a text or an image."""
