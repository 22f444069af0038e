//! Builds the request bodies that are sent, ahead of time.
//!
//! Traces come from a small shop of services calling one another, so that a
//! trace's spans are spread over several services' requests as real SDKs
//! spread them, with HTTP, database, messaging and internal spans in natural
//! proportion. Everything follows from the seed.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{Msg, Patch, Signal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn name(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }

    pub fn compress(self, raw: &[u8]) -> Vec<u8> {
        match self {
            Compression::None => raw.to_vec(),
            Compression::Gzip => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                e.write_all(raw).expect("writing to memory");
                e.finish().expect("writing to memory")
            }
            Compression::Zstd => zstd::bulk::compress(raw, 3).expect("zstd takes any input"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Shape {
    pub signal: Signal,
    /// Items in each request.
    pub batch: usize,
    /// Attributes on each item.
    pub attrs: usize,
    /// Distinct requests to build.
    pub payloads: usize,
    /// Services sending them, at most 12.
    pub services: usize,
    /// Percentage of operations that fail.
    pub error_pct: f64,
    /// Keep short last batches, so that every trace is complete.
    pub complete: bool,
    pub seed: u64,
    pub compression: Compression,
}

/// One request body, ready to send or to patch and send.
pub struct Payload {
    pub items: u64,
    /// The protobuf message.
    raw: Vec<u8>,
    /// gRPC prefix and message, compressed as asked.
    framed: Bytes,
    patches: Vec<Patch>,
    compression: Compression,
}

impl Payload {
    fn new(items: u64, msg: Msg, compression: Compression) -> Payload {
        let framed = frame(&msg.buf, compression);
        Payload { items, framed, raw: msg.buf, patches: msg.patches, compression }
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The body as built; costs nothing.
    pub fn framed(&self) -> Bytes {
        self.framed.clone()
    }

    /// The body with ids and times that no earlier epoch had. All payloads of
    /// one epoch are changed alike, so traces still join across requests.
    pub fn fresh(&self, epoch: u64, time_shift: u64) -> Bytes {
        let mix = splitmix(epoch.wrapping_add(1)) | 1;
        let mut buf = BytesMut::with_capacity(self.raw.len() + 5);
        buf.put_u8(0);
        buf.put_u32(self.raw.len() as u32);
        buf.put_slice(&self.raw);
        let body = &mut buf[5..];
        for p in &self.patches {
            let (at, is_time) = match *p {
                Patch::TraceId(o) | Patch::SpanId(o) => (o as usize, false),
                Patch::Time(o) => (o as usize, true),
            };
            let word: &mut [u8; 8] = (&mut body[at..at + 8]).try_into().expect("eight bytes");
            let v = u64::from_le_bytes(*word);
            let v = if is_time { v.wrapping_add(time_shift) } else { v ^ mix };
            *word = v.to_le_bytes();
        }
        match self.compression {
            Compression::None => buf.freeze(),
            c => frame(&buf[5..], c),
        }
    }
}

fn frame(raw: &[u8], compression: Compression) -> Bytes {
    let body = compression.compress(raw);
    let mut b = BytesMut::with_capacity(body.len() + 5);
    b.put_u8(u8::from(compression != Compression::None));
    b.put_u32(u32::try_from(body.len()).expect("a body under 4 GiB"));
    b.put_slice(&body);
    b.freeze()
}

pub struct Set {
    pub payloads: Vec<Payload>,
    pub items: u64,
    pub bytes: u64,
    pub wire_bytes: u64,
    /// The latest time in the payloads, so that `--fresh` can bring it to now.
    pub newest: u64,
}

pub fn build(shape: &Shape) -> Set {
    let mut world = World::new(shape);
    match shape.signal {
        Signal::Traces => world.traces(),
        Signal::Logs => world.logs(),
        Signal::Metrics => world.metrics(),
    }
    let payloads = world.out;
    Set {
        items: payloads.iter().map(|p| p.items).sum(),
        bytes: payloads.iter().map(|p| p.raw.len() as u64).sum(),
        wire_bytes: payloads.iter().map(|p| p.framed.len() as u64).sum(),
        newest: world.newest,
        payloads,
    }
}

pub fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        splitmix(self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, pct: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 100.0 < pct
    }

    fn pick<T: Copy>(&mut self, xs: &[T]) -> T {
        xs[self.below(xs.len())]
    }
}

struct Service {
    name: &'static str,
    language: &'static str,
    routes: &'static [(&'static str, &'static str)],
    /// Indices of the services it calls.
    calls: &'static [usize],
    db: Option<(&'static str, &'static str)>,
}

const SERVICES: [Service; 12] = [
    Service {
        name: "frontend-proxy",
        language: "cpp",
        routes: &[("GET", "/"), ("GET", "/api/products/{id}"), ("POST", "/api/checkout")],
        calls: &[1],
        db: None,
    },
    Service {
        name: "frontend",
        language: "nodejs",
        routes: &[
            ("GET", "/api/products"),
            ("GET", "/api/products/{productId}"),
            ("GET", "/api/cart"),
            ("POST", "/api/cart"),
            ("POST", "/api/checkout"),
            ("GET", "/api/recommendations"),
        ],
        calls: &[2, 3, 4, 5, 10],
        db: None,
    },
    Service {
        name: "product-catalog",
        language: "go",
        routes: &[
            ("POST", "/oteldemo.ProductCatalogService/GetProduct"),
            ("POST", "/oteldemo.ProductCatalogService/ListProducts"),
        ],
        calls: &[],
        db: Some(("postgresql", "products")),
    },
    Service {
        name: "cart",
        language: "dotnet",
        routes: &[
            ("POST", "/oteldemo.CartService/GetCart"),
            ("POST", "/oteldemo.CartService/AddItem"),
            ("POST", "/oteldemo.CartService/EmptyCart"),
        ],
        calls: &[],
        db: Some(("redis", "cart")),
    },
    Service {
        name: "checkout",
        language: "go",
        routes: &[("POST", "/oteldemo.CheckoutService/PlaceOrder")],
        calls: &[2, 3, 6, 7, 8, 9],
        db: None,
    },
    Service {
        name: "recommendation",
        language: "python",
        routes: &[("POST", "/oteldemo.RecommendationService/ListRecommendations")],
        calls: &[2],
        db: None,
    },
    Service {
        name: "payment",
        language: "nodejs",
        routes: &[("POST", "/oteldemo.PaymentService/Charge")],
        calls: &[11],
        db: None,
    },
    Service {
        name: "shipping",
        language: "rust",
        routes: &[("POST", "/get-quote"), ("POST", "/ship-order")],
        calls: &[],
        db: None,
    },
    Service { name: "email", language: "ruby", routes: &[("POST", "/send_order_confirmation")], calls: &[], db: None },
    Service { name: "currency", language: "cpp", routes: &[("POST", "/oteldemo.CurrencyService/Convert")], calls: &[], db: None },
    Service {
        name: "ad",
        language: "java",
        routes: &[("POST", "/oteldemo.AdService/GetAds")],
        calls: &[],
        db: Some(("mysql", "ads")),
    },
    Service {
        name: "fraud-detection",
        language: "java",
        routes: &[("POST", "/v1/score")],
        calls: &[],
        db: Some(("postgresql", "fraud")),
    },
];

const INTERNAL: [&str; 6] = [
    "render template",
    "validate request",
    "CheckoutService.prepareOrderItems",
    "serialize response",
    "lookup feature flags",
    "calculate discount",
];

const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
];

const KIND_INTERNAL: u64 = 1;
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
const KIND_PRODUCER: u64 = 4;
const KIND_CONSUMER: u64 = 5;

/// Instances (pods) of each service.
const INSTANCES: usize = 3;

enum Attr<'a> {
    S(&'a str, &'a str),
    I(&'a str, u64),
}

fn key_value(a: &Attr<'_>) -> Msg {
    let mut any = Msg::new();
    let mut kv = Msg::new();
    match a {
        Attr::S(k, v) => {
            any.bytes(1, v.as_bytes());
            kv.str(1, k);
        }
        Attr::I(k, v) => {
            any.uint_always(3, *v);
            kv.str(1, k);
        }
    }
    kv.msg(2, &any);
    kv
}

struct Queue {
    service: usize,
    instance: usize,
    items: Vec<(usize, Msg)>,
}

struct World<'a> {
    shape: &'a Shape,
    rng: Rng,
    queues: Vec<Queue>,
    out: Vec<Payload>,
    newest: u64,
}

const BASE_TIME: u64 = 1_760_000_000_000_000_000;

impl<'a> World<'a> {
    fn new(shape: &'a Shape) -> World<'a> {
        let services = shape.services.clamp(1, SERVICES.len());
        let queues = (0..services)
            .flat_map(|service| (0..INSTANCES).map(move |instance| (service, instance)))
            .map(|(service, instance)| Queue { service, instance, items: Vec::new() })
            .collect();
        World { shape, rng: Rng(shape.seed.wrapping_mul(0x1000_0001)), queues, out: Vec::new(), newest: BASE_TIME }
    }

    fn full(&self) -> bool {
        self.out.len() >= self.shape.payloads
    }

    fn resource(&mut self, service: usize, instance: usize) -> Msg {
        let s = &SERVICES[service];
        let pod = format!("{}-7d9c5b8f6d-{:05x}", s.name, splitmix((service * 31 + instance) as u64) & 0xfffff);
        let id = splitmix((service * 97 + instance) as u64);
        let uid = format!("{:08x}-4f1e-4c7a-9d2b-{:012x}", id >> 32, id & 0xffff_ffff_ffff);
        let host = format!("ip-10-0-{}-{}.ec2.internal", service, 10 + instance);
        let mut r = Msg::new();
        for a in [
            Attr::S("service.name", s.name),
            Attr::S("service.namespace", "opentelemetry-demo"),
            Attr::S("service.version", "2.1.3"),
            Attr::S("service.instance.id", &uid),
            Attr::S("deployment.environment.name", "production"),
            Attr::S("host.name", &host),
            Attr::S("k8s.namespace.name", "shop"),
            Attr::S("k8s.pod.name", &pod),
            Attr::S("k8s.deployment.name", s.name),
            Attr::S("telemetry.sdk.name", "opentelemetry"),
            Attr::S("telemetry.sdk.language", s.language),
            Attr::S("telemetry.sdk.version", "1.38.0"),
        ] {
            r.msg(1, &key_value(&a));
        }
        r
    }

    fn push(&mut self, service: usize, instance: usize, scope: usize, item: Msg) {
        let qi = service % self.shape.services.max(1) * INSTANCES + instance;
        let qi = qi.min(self.queues.len() - 1);
        self.queues[qi].items.push((scope, item));
        if self.queues[qi].items.len() >= self.shape.batch {
            if self.shape.complete || !self.full() {
                self.flush(qi);
            } else {
                self.queues[qi].items.clear();
            }
        }
    }

    fn flush(&mut self, qi: usize) {
        let q = &mut self.queues[qi];
        let (service, instance) = (q.service, q.instance);
        let items = std::mem::take(&mut q.items);
        let resource = self.resource(service, instance);
        let mut resource_items = Msg::new();
        resource_items.msg(1, &resource);
        // Item by item in arrival order within each instrumentation scope.
        for (scope_no, scope_name) in
            ["io.opentelemetry.http-server", "io.opentelemetry.http-client", "shop.application"].iter().enumerate()
        {
            if !items.iter().any(|(s, _)| *s == scope_no) {
                continue;
            }
            let mut scope = Msg::new();
            scope.str(1, scope_name);
            scope.str(2, "0.54.0");
            let mut scope_items = Msg::new();
            scope_items.msg(1, &scope);
            for (_, item) in items.iter().filter(|(s, _)| *s == scope_no) {
                scope_items.msg(2, item);
            }
            scope_items.str(3, "https://opentelemetry.io/schemas/1.37.0");
            resource_items.msg(2, &scope_items);
        }
        let mut request = Msg::new();
        request.msg(1, &resource_items);
        let items = crate::wire::count_items(self.shape.signal, &request.buf).expect("our own encoding is well formed");
        self.out.push(Payload::new(items, request, self.shape.compression));
    }

    fn finish(&mut self) {
        if self.shape.complete {
            for qi in 0..self.queues.len() {
                if !self.queues[qi].items.is_empty() {
                    self.flush(qi);
                }
            }
        }
    }

    fn attrs(&mut self, item: &mut Msg, field: u32, natural: &[Attr<'_>]) {
        let want = self.shape.attrs;
        for a in natural.iter().take(want) {
            item.msg(field, &key_value(a));
        }
        for i in natural.len()..want {
            let value = format!("{:016x}", self.rng.next());
            let key = format!("app.context.field_{i:02}");
            item.msg(field, &key_value(&Attr::S(&key, &value)));
        }
    }

    // ---- traces ----

    fn traces(&mut self) {
        let mut start = BASE_TIME;
        while !self.full() {
            let trace_id = {
                let (a, b) = (self.rng.next().max(1), self.rng.next());
                let mut t = [0u8; 16];
                t[..8].copy_from_slice(&a.to_be_bytes());
                t[8..].copy_from_slice(&b.to_be_bytes());
                t
            };
            start += 1_000_000 + self.rng.next() % 3_000_000;
            let root = 0;
            let route = self.rng.below(SERVICES[root].routes.len());
            self.serve(root, route, &trace_id, None, start, 0);
        }
        self.finish();
    }

    fn span_id(&mut self) -> [u8; 8] {
        self.rng.next().max(1).to_be_bytes()
    }

    /// A server span and everything below it. Returns its duration.
    fn serve(
        &mut self,
        service: usize,
        route: usize,
        trace: &[u8; 16],
        parent: Option<[u8; 8]>,
        start: u64,
        depth: usize,
    ) -> u64 {
        let s = &SERVICES[service];
        let (method, path) = s.routes[route];
        let id = self.span_id();
        let instance = self.rng.below(INSTANCES);
        let mut at = start + 20_000 + self.rng.next() % 200_000;

        for _ in 0..1 + self.rng.below(2) {
            let d = 30_000 + self.rng.next() % 400_000;
            self.internal(service, instance, trace, id, at, d);
            at += d;
        }
        if let Some((system, db)) = s.db {
            for _ in 0..1 + self.rng.below(2) {
                let d = 200_000 + self.rng.next() % 3_000_000;
                self.database(service, instance, trace, id, at, d, system, db);
                at += d;
            }
        }
        if depth < 4 {
            let n = if s.calls.is_empty() { 0 } else { 1 + self.rng.below(s.calls.len().min(3)) };
            for _ in 0..n {
                let callee = self.rng.pick(s.calls);
                let route = self.rng.below(SERVICES[callee].routes.len());
                let client = self.span_id();
                let net = 100_000 + self.rng.next() % 400_000;
                let d = self.serve(callee, route, trace, Some(client), at + net, depth + 1);
                self.client(service, instance, trace, id, client, callee, route, at, d + 2 * net);
                at += d + 2 * net;
            }
        }
        if service == 4 {
            self.messaging(service, instance, trace, id, at);
        }

        let end = at + 20_000 + self.rng.next() % 100_000;
        let failed = self.rng.chance(self.shape.error_pct);
        let status = if failed { 500 } else { self.rng.pick(&[200, 200, 200, 200, 201, 204]) };
        let concrete = path.replace("{id}", "OLJCESPC7Z").replace("{productId}", "66VCHSJNUP");
        let client_ip = format!("10.0.{}.{}", self.rng.below(8), 1 + self.rng.below(250));
        let agent = self.rng.pick(&AGENTS);
        let name = format!("{method} {path}");
        let mut m = self.span(trace, &id, parent.as_ref(), &name, KIND_SERVER, start, end);
        let host = format!("{}.shop.svc.cluster.local", s.name);
        let mut natural = vec![
            Attr::S("http.request.method", method),
            Attr::I("http.response.status_code", status),
            Attr::S("http.route", path),
            Attr::S("url.path", &concrete),
            Attr::S("url.scheme", "http"),
            Attr::S("server.address", &host),
            Attr::I("server.port", 8080),
            Attr::S("network.protocol.version", "1.1"),
            Attr::S("client.address", &client_ip),
            Attr::S("user_agent.original", agent),
        ];
        if failed {
            natural.insert(2, Attr::S("error.type", "500"));
        }
        self.attrs(&mut m, 9, &natural);
        self.close(&mut m, failed, end);
        self.push(service, instance, 0, m);
        end - start
    }

    #[allow(clippy::too_many_arguments)]
    fn span(
        &mut self,
        trace: &[u8; 16],
        id: &[u8; 8],
        parent: Option<&[u8; 8]>,
        name: &str,
        kind: u64,
        start: u64,
        end: u64,
    ) -> Msg {
        self.newest = self.newest.max(end);
        let mut m = Msg::new();
        m.trace_id(1, trace);
        m.span_id(2, id);
        if let Some(p) = parent {
            m.span_id(4, p);
        }
        m.str(5, name);
        m.uint(6, kind);
        m.time(7, start);
        m.time(8, end);
        m
    }

    /// Events, status and flags, which come after the attributes.
    fn close(&mut self, m: &mut Msg, failed: bool, at: u64) {
        if failed {
            let mut e = Msg::new();
            e.time(1, at);
            e.str(2, "exception");
            for a in [
                Attr::S("exception.type", "io.grpc.StatusRuntimeException"),
                Attr::S("exception.message", "UNAVAILABLE: upstream connect error or disconnect/reset before headers"),
                Attr::S(
                    "exception.stacktrace",
                    "io.grpc.StatusRuntimeException: UNAVAILABLE\n\tat io.grpc.stub.ClientCalls.toStatusRuntimeException(ClientCalls.java:268)\n\tat io.grpc.stub.ClientCalls.getUnchecked(ClientCalls.java:249)\n\tat io.grpc.stub.ClientCalls.blockingUnaryCall(ClientCalls.java:167)\n\tat shop.OrderClient.place(OrderClient.java:81)\n",
                ),
            ] {
                e.msg(3, &key_value(&a));
            }
            m.msg(11, &e);
        }
        let mut status = Msg::new();
        if failed {
            status.str(2, "upstream unavailable");
            status.uint(3, 2);
        }
        m.msg(15, &status);
        m.fixed32(16, 0x101);
    }

    fn internal(&mut self, service: usize, instance: usize, trace: &[u8; 16], parent: [u8; 8], start: u64, d: u64) {
        let id = self.span_id();
        let name = self.rng.pick(&INTERNAL);
        let mut m = self.span(trace, &id, Some(&parent), name, KIND_INTERNAL, start, start + d);
        let user = format!("{:016x}", self.rng.next());
        let order = format!("ord-{:08}", self.rng.next() % 100_000_000);
        let thread = self.rng.next() % 64;
        self.attrs(
            &mut m,
            9,
            &[
                Attr::S("code.function.name", name),
                Attr::S("code.file.path", "/srv/app/src/handlers/order_handler"),
                Attr::I("code.line.number", 100 + thread),
                Attr::I("thread.id", thread),
                Attr::S("thread.name", "worker-pool-3"),
                Attr::S("enduser.id", &user),
                Attr::S("app.order.id", &order),
                Attr::S("app.currency", "EUR"),
            ],
        );
        self.close(&mut m, false, start + d);
        self.push(service, instance, 2, m);
    }

    #[allow(clippy::too_many_arguments)]
    fn client(
        &mut self,
        service: usize,
        instance: usize,
        trace: &[u8; 16],
        parent: [u8; 8],
        id: [u8; 8],
        callee: usize,
        route: usize,
        start: u64,
        d: u64,
    ) {
        let (method, path) = SERVICES[callee].routes[route];
        let failed = self.rng.chance(self.shape.error_pct);
        let host = format!("{}.shop.svc.cluster.local", SERVICES[callee].name);
        let url = format!("http://{host}:8080{path}");
        let peer = format!("10.0.{}.{}", callee, 1 + self.rng.below(250));
        let mut m = self.span(trace, &id, Some(&parent), method, KIND_CLIENT, start, start + d);
        self.attrs(
            &mut m,
            9,
            &[
                Attr::S("http.request.method", method),
                Attr::I("http.response.status_code", if failed { 503 } else { 200 }),
                Attr::S("url.full", &url),
                Attr::S("server.address", &host),
                Attr::I("server.port", 8080),
                Attr::S("network.peer.address", &peer),
                Attr::I("network.peer.port", 8080),
                Attr::S("network.protocol.version", "1.1"),
                Attr::S("peer.service", SERVICES[callee].name),
            ],
        );
        self.close(&mut m, failed, start + d);
        self.push(service, instance, 1, m);
    }

    #[allow(clippy::too_many_arguments)]
    fn database(
        &mut self,
        service: usize,
        instance: usize,
        trace: &[u8; 16],
        parent: [u8; 8],
        start: u64,
        d: u64,
        system: &str,
        db: &str,
    ) {
        let id = self.span_id();
        let (op, text) = if system == "redis" {
            ("HGETALL", "HGETALL ?".to_string())
        } else {
            (
                "SELECT",
                format!(
                    "SELECT id, name, description, price_units, price_nanos FROM {db} WHERE id = $1 AND tenant_id = $2 LIMIT 50"
                ),
            )
        };
        let name = format!("{op} {db}");
        let host = format!("{system}.shop.svc.cluster.local");
        let mut m = self.span(trace, &id, Some(&parent), &name, KIND_CLIENT, start, start + d);
        self.attrs(
            &mut m,
            9,
            &[
                Attr::S("db.system.name", system),
                Attr::S("db.namespace", "shop"),
                Attr::S("db.collection.name", db),
                Attr::S("db.operation.name", op),
                Attr::S("db.query.text", &text),
                Attr::S("server.address", &host),
                Attr::I("server.port", 5432),
                Attr::I("db.response.returned_rows", 17),
            ],
        );
        self.close(&mut m, false, start + d);
        self.push(service, instance, 1, m);
    }

    fn messaging(&mut self, service: usize, instance: usize, trace: &[u8; 16], parent: [u8; 8], at: u64) {
        let producer = self.span_id();
        let consumer = self.span_id();
        let message = format!("{:016x}", self.rng.next());
        for (who, id, par, name, kind, op, from) in [
            (service, producer, parent, "publish orders", KIND_PRODUCER, "publish", at),
            (11, consumer, producer, "process orders", KIND_CONSUMER, "process", at + 2_000_000),
        ] {
            let end = from + 300_000;
            let mut m = self.span(trace, &id, Some(&par), name, kind, from, end);
            self.attrs(
                &mut m,
                9,
                &[
                    Attr::S("messaging.system", "kafka"),
                    Attr::S("messaging.destination.name", "orders"),
                    Attr::S("messaging.operation.name", op),
                    Attr::S("messaging.message.id", &message),
                    Attr::I("messaging.kafka.offset", 1_234_567),
                    Attr::S("messaging.destination.partition.id", "7"),
                    Attr::S("server.address", "kafka.shop.svc.cluster.local"),
                    Attr::I("server.port", 9092),
                ],
            );
            self.close(&mut m, false, end);
            self.push(who, instance, 2, m);
        }
    }

    // ---- logs ----

    fn logs(&mut self) {
        let mut at = BASE_TIME;
        while !self.full() {
            at += 50_000 + self.rng.next() % 500_000;
            self.newest = at;
            let service = self.rng.below(self.shape.services.clamp(1, SERVICES.len()));
            let instance = self.rng.below(INSTANCES);
            let failed = self.rng.chance(self.shape.error_pct);
            let (method, path) = self.rng.pick(SERVICES[service].routes);
            let took = self.rng.next() % 900;
            let user = format!("{:016x}", self.rng.next());
            let (number, text, body) = if failed {
                (
                    17,
                    "ERROR",
                    format!(
                        "request {method} {path} failed after {took} ms for user {user}: upstream connect error or disconnect/reset before headers"
                    ),
                )
            } else {
                (9, "INFO", format!("handled {method} {path} in {took} ms for user {user}, cache hit, 3 items returned"))
            };
            let mut any = Msg::new();
            any.str(1, &body);
            let mut m = Msg::new();
            m.time(1, at);
            m.uint(2, number);
            m.str(3, text);
            m.msg(5, &any);
            let line = self.rng.next() % 400;
            self.attrs(
                &mut m,
                6,
                &[
                    Attr::S("code.file.path", "/srv/app/src/handlers/order_handler"),
                    Attr::I("code.line.number", line),
                    Attr::S("http.request.method", method),
                    Attr::S("http.route", path),
                    Attr::I("http.response.status_code", if failed { 500 } else { 200 }),
                    Attr::S("enduser.id", &user),
                    Attr::S("thread.name", "worker-pool-3"),
                    Attr::S("event.name", "request.handled"),
                ],
            );
            m.fixed32(8, 1);
            let (a, b, c) = (self.rng.next(), self.rng.next(), self.rng.next());
            let mut t = [0u8; 16];
            t[..8].copy_from_slice(&a.to_be_bytes());
            t[8..].copy_from_slice(&b.to_be_bytes());
            m.trace_id(9, &t);
            m.span_id(10, &c.to_be_bytes());
            m.time(11, at + 1000);
            self.push(service, instance, 2, m);
        }
        self.finish();
    }

    // ---- metrics ----

    /// One metric per item pushed; `batch` counts data points, so each metric
    /// has as many points as fill the batch with 24 metrics.
    fn metrics(&mut self) {
        let metrics = 24.min(self.shape.batch);
        let per_metric = (self.shape.batch / metrics).max(1);
        let mut at = BASE_TIME;
        while !self.full() {
            at += 10_000_000_000;
            self.newest = at;
            let service = self.rng.below(self.shape.services.clamp(1, SERVICES.len()));
            let instance = self.rng.below(INSTANCES);
            let qi = service * INSTANCES + instance;
            for i in 0..metrics {
                let m = self.metric(i, per_metric, service, at);
                self.queues[qi].items.push((2, m));
            }
            self.flush(qi);
        }
    }

    fn metric(&mut self, i: usize, points: usize, service: usize, at: u64) -> Msg {
        let mut data = Msg::new();
        let shape = i % 3;
        for p in 0..points {
            let (method, path) = SERVICES[service].routes[p % SERVICES[service].routes.len()];
            let mut m = Msg::new();
            let attr_field = if shape == 0 { 9 } else { 7 };
            let shard = format!("{p:04}");
            let status = if self.rng.chance(self.shape.error_pct) { 500 } else { 200 };
            self.attrs(
                &mut m,
                attr_field,
                &[
                    Attr::S("http.request.method", method),
                    Attr::S("http.route", path),
                    Attr::I("http.response.status_code", status),
                    Attr::S("url.scheme", "http"),
                    Attr::S("shop.shard", &shard),
                ],
            );
            m.time(2, BASE_TIME);
            m.time(3, at);
            if shape == 0 {
                let counts: Vec<u64> = (0..15).map(|_| self.rng.next() % 1000).collect();
                m.fixed64(4, counts.iter().sum());
                m.double(5, (self.rng.next() % 1_000_000) as f64 / 1000.0);
                m.packed_fixed64(6, &counts);
                let bounds: Vec<u64> = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0f64]
                    .iter()
                    .map(|b| b.to_bits())
                    .collect();
                m.packed_fixed64(7, &bounds);
            } else {
                m.fixed64(6, self.rng.next() % 1_000_000);
            }
            data.msg(1, &m);
        }
        let (name, unit, field) = match shape {
            0 => ("http.server.request.duration", "s", 9),
            1 => ("http.server.active_requests", "{request}", 5),
            _ => ("shop.orders.processed", "{order}", 7),
        };
        if shape != 1 {
            data.uint(2, 2);
        }
        if shape == 2 {
            data.uint(3, 1);
        }
        let mut metric = Msg::new();
        metric.str(1, &format!("{name}.{i:02}"));
        metric.str(2, "One of the metrics a service of the shop reports.");
        metric.str(3, unit);
        metric.msg(field, &data);
        metric
    }
}
