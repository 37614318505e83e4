"""Traces, metrics and logs for OpenTelemetry, sent by OTLP.

The service is `anywire_service_opentelemetry.service.OpenTelemetryService`. This file imports nothing: the command line
stays quick.
"""
