"""Logs and metrics. `metric_list.py` declares each metric; what is not listed cannot be counted."""
