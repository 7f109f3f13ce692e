"""The engine's metrics for Prometheus, over TCP and for metrics plugins (MetricsCollector 1.0)."""
