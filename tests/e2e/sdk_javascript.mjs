// A program instrumented with the JavaScript SDK: sends spans, log records and metrics, and says as JSON what was accepted.
//
// usage: sdk_javascript.mjs PROTOCOL BASE_URL SERVICE      PROTOCOL: grpc, http/protobuf or http/json
// NODE_MODULES names the folder that holds the packages.
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { SpanKind, SpanStatusCode, context, trace } = require('@opentelemetry/api');
const { SeverityNumber } = require('@opentelemetry/api-logs');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { LoggerProvider, BatchLogRecordProcessor } = require('@opentelemetry/sdk-logs');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');

const [protocol, base, service] = process.argv.slice(2);
const flavour = { grpc: 'grpc', 'http/protobuf': 'proto', 'http/json': 'http' }[protocol];
const exporter = (signal, name) => {
  const kind = require(`@opentelemetry/exporter-${signal === 'traces' ? 'trace' : signal}-otlp-${flavour}`)[name];
  return new kind({ url: flavour === 'grpc' ? base : `${base}/v1/${signal}` });
};

const accepted = {};
const counted = (exporter, signal, count) => {
  const send = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      const key = result.code === 0 ? signal : `${signal} failed`;
      accepted[key] = (accepted[key] ?? 0) + count(batch);
      if (result.error) console.error(String(result.error));
      done(result);
    });
  return exporter;
};
const points = (data) => data.scopeMetrics.flatMap((scope) => scope.metrics).reduce((sum, metric) => sum + metric.dataPoints.length, 0);

const resource = resourceFromAttributes({ 'service.name': service, 'deployment.environment.name': 'e2e' });
const traces = counted(exporter('traces', 'OTLPTraceExporter'), 'traces', (batch) => batch.length);
const limits = { maxQueueSize: 20000, maxExportBatchSize: 512 };
const tracers = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(traces, limits)] });
const logs = counted(exporter('logs', 'OTLPLogExporter'), 'logs', (batch) => batch.length);
// The processor took its exporter alone before it took an object of settings.
let processor;
try {
  processor = new BatchLogRecordProcessor({ exporter: logs, ...limits });
  if (processor._exporter !== undefined && processor._exporter !== logs) throw new Error('older signature');
} catch {
  processor = new BatchLogRecordProcessor(logs, limits);
}
const loggers = new LoggerProvider({ resource, processors: [processor] });
const metrics = counted(exporter('metrics', 'OTLPMetricExporter'), 'metrics', points);
const reader = new PeriodicExportingMetricReader({ exporter: metrics, exportIntervalMillis: 1000, exportTimeoutMillis: 1000 });
const meters = new MeterProvider({ resource, readers: [reader] });

const tracer = tracers.getTracer('e2e', '1.0');
const meter = meters.getMeter('e2e');
const requests = meter.createCounter('shop.requests', { unit: '{request}' });
const active = meter.createUpDownCounter('shop.active');
const duration = meter.createHistogram('shop.duration', { unit: 's' });
meter.createObservableGauge('shop.temperature').addCallback((result) => result.observe(21.5));
const log = loggers.getLogger('shop');

for (let number = 0; number < 400; number += 1) {
  const server = tracer.startSpan('GET /orders/:id', { kind: SpanKind.SERVER, attributes: { 'http.request.method': 'GET' } });
  const inside = trace.setSpan(context.active(), server);
  requests.add(1, { route: '/orders/:id' });
  active.add(1);
  duration.record(0.001 * number, { route: '/orders/:id' });
  const client = tracer.startSpan('SELECT orders', { kind: SpanKind.CLIENT, attributes: { odd: 'ä\u{1f600}\n"' } }, inside);
  client.addEvent('fetched', { rows: number });
  client.end();
  log.emit({ severityNumber: SeverityNumber.INFO, severityText: 'INFO', body: `order ${number} read`, context: inside });
  if (number % 20 === 0) {
    server.recordException(new Error('no such order'));
    server.setStatus({ code: SpanStatusCode.ERROR, message: 'no such order' });
  }
  active.add(-1);
  server.end();
}

await tracers.shutdown();
await loggers.shutdown();
await meters.shutdown();
console.log(JSON.stringify(accepted));
