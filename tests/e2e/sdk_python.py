"""A program instrumented with the Python SDK: sends spans, log records and metrics, and says as JSON what was accepted.

usage: sdk_python.py PROTOCOL BASE_URL SERVICE      PROTOCOL: grpc or http/protobuf
"""

import json
import logging
import sys
from collections import Counter

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

protocol, base, service = sys.argv[1:]
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    options = [{"endpoint": base, "insecure": True}] * 3
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    options = [{"endpoint": f"{base}/v1/{path}"} for path in ("traces", "logs", "metrics")]

accepted = Counter()


def counted(exporter, signal, good, count):
    """The exporter, with what it delivered counted."""
    export = exporter.export

    def counting(batch, *args, **kwargs):
        result = export(batch, *args, **kwargs)
        accepted[signal if result == good else signal + " failed"] += count(batch)
        return result

    exporter.export = counting
    return exporter


def points(data):
    return sum(
        len(metric.data.data_points) for group in data.resource_metrics for scope in group.scope_metrics for metric in scope.metrics
    )


resource = Resource.create({"service.name": service, "deployment.environment.name": "e2e"})
tracers = TracerProvider(resource=resource)
spans = counted(OTLPSpanExporter(**options[0]), "traces", SpanExportResult.SUCCESS, len)
tracers.add_span_processor(BatchSpanProcessor(spans, max_queue_size=20000, max_export_batch_size=512))
loggers = LoggerProvider(resource=resource)
logs = counted(OTLPLogExporter(**options[1]), "logs", LogRecordExportResult.SUCCESS, len)
loggers.add_log_record_processor(BatchLogRecordProcessor(logs, max_queue_size=20000))
metrics = counted(OTLPMetricExporter(**options[2]), "metrics", MetricExportResult.SUCCESS, points)
reader = PeriodicExportingMetricReader(metrics, export_interval_millis=1000)
meters = MeterProvider(resource=resource, metric_readers=[reader])

tracer = tracers.get_tracer("e2e", "1.0")
meter = meters.get_meter("e2e")
requests = meter.create_counter("shop.requests", unit="{request}")
active = meter.create_up_down_counter("shop.active")
duration = meter.create_histogram("shop.duration", unit="s")
meter.create_observable_gauge("shop.temperature", [lambda _: [__import__("opentelemetry.metrics").metrics.Observation(21.5)]])
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(LoggingHandler(logger_provider=loggers))

for number in range(400):
    with tracer.start_as_current_span("GET /orders/{id}", kind=SpanKind.SERVER, attributes={"http.request.method": "GET"}) as server:
        requests.add(1, {"route": "/orders/{id}"})
        active.add(1)
        duration.record(0.001 * number, {"route": "/orders/{id}"})
        with tracer.start_as_current_span("SELECT orders", kind=SpanKind.CLIENT) as client:
            client.set_attribute("db.system.name", "postgresql")
            client.set_attribute("odd", "ä\u0000\U0001f600\n\"'")
            client.add_event("fetched", {"rows": number})
        log.info("order %d read", number)
        if number % 20 == 0:
            server.record_exception(ValueError("no such order"))
            server.set_status(Status(StatusCode.ERROR, "no such order"))
        active.add(-1)

for provider in (tracers, loggers, meters):
    provider.shutdown()
print(json.dumps(accepted))
