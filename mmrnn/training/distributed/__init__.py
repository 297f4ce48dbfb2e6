"""Training in several processes: the only place that knows ranks."""
