"""The one place that writes what people read."""
