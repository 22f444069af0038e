"""`service::telemetry` sends weir's own spans and metrics over OTLP, shows pages in the style that the file asks for, and logs as JSON."""

import json

from harness import WORK, Sender, Sink, get, main, port, promise, samples, until, weir

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:${env:GRPC}"}}}}
exporters: {otlp_grpc: {endpoint: "127.0.0.1:${env:OUT}", tls: {insecure: true}}}
service:
  telemetry:
    resource: {service.name: edge, rack: 7}
    logs: {encoding: json, initial_fields: {site: lab}}
    traces:
      processors:
        - batch: {schedule_delay: 200, exporter: {otlp: {protocol: grpc, endpoint: "http://127.0.0.1:${env:OWN}"}}}
    metrics:
      readers:
        - pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:PAGE}", without_type_suffix: false, without_units: false, without_scope_info: false}}}
        - periodic: {interval: 500, exporter: {otlp: {protocol: grpc, endpoint: "http://127.0.0.1:${env:OWN}"}}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}
"""


def check():
    backend, own = Sink(), Sink()
    grpc, page = port(), port()
    config = WORK / "own.yaml"
    config.write_text(CONFIG)
    env = {"GRPC": str(grpc), "OUT": str(backend.port), "OWN": str(own.port), "PAGE": str(page)}
    process = weir(["run", "--config", config], env).listens(grpc).listens(page)

    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = b"t" * 16, b"s" * 8, "work"
    sender = Sender(grpc)
    promise("a request is taken", sender.send("traces", request.SerializeToString()) is None)
    refused = sender.send("traces", b"\xff\xff\xff")
    promise("a broken one is not", refused is not None)

    def names():
        return {span.name: span for _, _, span in own.spans()}

    wanted = {"receiver/otlp/TraceDataReceived", "exporter/otlp_grpc/traces"}
    until(lambda: wanted <= set(names()) and len(list(own.spans())) >= 3, 10)
    promise("own spans arrive by the Collector's names", wanted <= set(names()), f"{sorted(names())}")
    statuses = sorted(span.status.code for _, _, span in own.spans() if span.name == "receiver/otlp/TraceDataReceived")
    promise("the span of what was refused is an error", statuses == [0, 2], f"{statuses}")
    resources = [{a.key: a.value.string_value for a in group.resource.attributes} for group, _, _ in own.spans()]
    promise("under the resource of the file", all(r.get("service.name") == "edge" and r.get("rack") == "7" for r in resources), f"{resources}")

    def metrics():
        return {
            metric.name: metric
            for request in own.requests("metrics")
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        }

    def accepted():
        points = metrics().get("otelcol_receiver_accepted_spans")
        return sum(point.as_double for point in points.sum.data_points) if points else 0

    until(lambda: accepted() == 1, 15)
    promise("own metrics arrive over OTLP", accepted() == 1, f"{sorted(metrics())}")

    _, _, text = get(f"http://127.0.0.1:{page}/metrics")
    found = {name: labels for name, labels, _, _ in samples(text)}
    promise("the page has suffixes where the file wants them", "otelcol_receiver_accepted_spans_total" in found, f"{sorted(found)}")
    promise("and units", "otelcol_process_uptime_seconds_total" in found and "otelcol_process_memory_rss_bytes" in found)
    promise("and scopes", "otel_scope_name" in found.get("otelcol_receiver_accepted_spans_total", {}))
    promise("target_info says who it is", found.get("target_info", {}).get("service_name") == "edge", f"{found.get('target_info')}")

    promise("weir ends in order", process.stop() == 0, process.text()[-1500:])
    lines = [line for line in process.text().splitlines() if line.startswith("{")]
    parsed = [json.loads(line) for line in lines]
    promise("log lines are JSON with the file's fields", parsed and all(line["site"] == "lab" and "msg" in line for line in parsed), lines[:1])
    sender.close()


main(check)
