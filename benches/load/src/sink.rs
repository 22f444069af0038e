//! Null sinks: OTLP/gRPC servers that accept everything and keep nothing.
//! Three of them, to tell apart what the layers cost:
//!
//! * `tonic` – tonic's server and router with a codec that hands bytes through;
//! * `h2`    – the `h2` crate under the bare gRPC protocol;
//! * `mini`  – blocking sockets and just enough HTTP/2 to answer (see `mini`).

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    load::Error,
    mini, tcp,
    wire::{self, RedTable, Signal},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stack {
    Tonic,
    H2,
    Mini,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Requests and bytes only.
    Bytes,
    /// Also items, by hopping over lengths.
    Items,
    /// Also RED metrics of every span, by a borrowed walk (traces only).
    Red,
}

#[derive(Args, Clone)]
pub struct SinkArgs {
    /// Loopback address to listen on.
    #[arg(long, default_value = "127.0.0.1:4319")]
    pub listen: SocketAddr,
    #[arg(long, value_enum, default_value_t = Stack::H2)]
    pub stack: Stack,
    #[arg(long, value_enum, default_value_t = Work::Items)]
    pub work: Work,
    /// Threads (tonic and h2; mini and tcp have one a connection).
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Largest message accepted, in MiB (tonic).
    #[arg(long, default_value_t = 64)]
    pub max_message_mib: usize,
    /// Largest HTTP/2 frame to offer, in KiB (tonic and h2). By default h2
    /// offers 1024, tonic what it offers by itself, which is 16.
    #[arg(long)]
    pub max_frame_kib: Option<u32>,
    /// Pass every message on, as the bytes it came as, to this loopback address
    /// and answer when that has answered (h2): the floor of a forwarder.
    #[arg(long)]
    pub forward: Option<SocketAddr>,
    /// Keep totals in this file, for `load --sink-stats`.
    #[arg(long)]
    pub stats: Option<PathBuf>,
}

/// The largest frame HTTP/2 allows.
const MAX_FRAME: u32 = (1 << 24) - 1;

/// What the sink has seen, and how it looks at it.
pub struct Seen {
    work: Work,
    requests: AtomicU64,
    bytes: AtomicU64,
    items: AtomicU64,
    malformed: AtomicU64,
}

thread_local! {
    static RED: std::cell::RefCell<RedTable> = std::cell::RefCell::new(RedTable::new());
}

impl Seen {
    pub fn message(&self, signal: Signal, compressed: bool, message: &[u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        if self.work == Work::Bytes {
            return;
        }
        let plain;
        let message = if compressed {
            match inflate(message) {
                Ok(p) => {
                    plain = p;
                    &plain
                }
                Err(_) => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        } else {
            message
        };
        let counted = if self.work == Work::Red && signal == Signal::Traces {
            let mut n = 0;
            RED.with_borrow_mut(|red| {
                wire::walk_spans(message, |s| {
                    n += 1;
                    red.add(s);
                })
            })
            .map(|()| n)
        } else {
            wire::count_items(signal, message)
        };
        match counted {
            Ok(n) => self.items.fetch_add(n, Ordering::Relaxed),
            Err(_) => self.malformed.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn stats(&self) -> Stats {
        Stats {
            requests: self.requests.load(Ordering::Relaxed),
            items: self.items.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
        }
    }
}

/// Only to count what is in a compressed message; told apart by its magic.
fn inflate(message: &[u8]) -> io::Result<Vec<u8>> {
    if message.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return zstd::stream::decode_all(message);
    }
    let mut out = Vec::new();
    io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(message), &mut out)?;
    Ok(out)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub requests: u64,
    pub items: u64,
    pub bytes: u64,
    pub malformed: u64,
}

pub fn read_stats(path: &Path) -> Result<Stats, Error> {
    let text = std::fs::read_to_string(path)?;
    let mut n = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || -> Result<u64, Error> { Ok(n.next().ok_or("short sink statistics")??) };
    Ok(Stats { requests: next()?, items: next()?, bytes: next()?, malformed: next()? })
}

/// The statistics once they have stood still for a second.
pub fn settled_stats(path: &Path, at_most: Duration) -> Result<Stats, Error> {
    let deadline = Instant::now() + at_most;
    let mut last = read_stats(path)?;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        let now = read_stats(path)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

pub fn run(args: &SinkArgs) -> Result<(), Error> {
    if !args.listen.ip().is_loopback() {
        return Err("sinks listen on loopback addresses only".into());
    }
    if args.forward.is_some_and(|to| !to.ip().is_loopback() || args.stack != Stack::H2) {
        return Err("only the h2 sink forwards, and to loopback addresses only".into());
    }
    let seen = Arc::new(Seen {
        work: args.work,
        requests: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        items: AtomicU64::new(0),
        malformed: AtomicU64::new(0),
    });
    if let Some(path) = args.stats.clone() {
        let seen = seen.clone();
        let write = move || -> io::Result<()> {
            let s = seen.stats();
            let line = format!("{} {} {} {}\n", s.requests, s.items, s.bytes, s.malformed);
            let temporary = path.with_extension("new");
            std::fs::write(&temporary, line)?;
            std::fs::rename(&temporary, &path)
        };
        write()?;
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(200));
                if let Err(e) = write() {
                    eprintln!("sink statistics: {e}");
                }
            }
        });
    }
    println!("{:?} sink on {}, pid {}", args.stack, args.listen, std::process::id());
    match args.stack {
        Stack::Mini => return mini::serve(args.listen, seen),
        Stack::Tcp => return tcp::serve(args.listen, seen),
        Stack::Tonic | Stack::H2 => {}
    }
    let rt = if args.threads <= 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build()?
    };
    rt.block_on(async {
        match args.stack {
            Stack::Tonic => tonic_sink::serve(args, seen).await,
            _ => h2_sink::serve(args, seen).await,
        }
    })
}

mod tonic_sink {
    use std::{
        convert::Infallible,
        future::Future,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::{Buf, Bytes};
    use tonic::{
        Request, Response, Status,
        body::Body,
        codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
        server::{Grpc, NamedService, UnaryService},
    };

    use super::*;

    /// Bytes in, an empty message out.
    #[derive(Default)]
    struct Raw;

    impl Codec for Raw {
        type Encode = ();
        type Decode = Bytes;
        type Encoder = Raw;
        type Decoder = Raw;
        fn encoder(&mut self) -> Raw {
            Raw
        }
        fn decoder(&mut self) -> Raw {
            Raw
        }
    }

    impl Encoder for Raw {
        type Item = ();
        type Error = Status;
        fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
            Ok(())
        }
        fn buffer_settings(&self) -> BufferSettings {
            BufferSettings::default()
        }
    }

    impl Decoder for Raw {
        type Item = Bytes;
        type Error = Status;
        fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
            let n = src.remaining();
            Ok(Some(src.copy_to_bytes(n)))
        }
    }

    #[derive(Clone)]
    struct Export {
        signal: Signal,
        seen: Arc<Seen>,
    }

    impl UnaryService<Bytes> for Export {
        type Response = ();
        type Future = std::future::Ready<Result<Response<()>, Status>>;
        fn call(&mut self, request: Request<Bytes>) -> Self::Future {
            // tonic has already inflated what came compressed.
            self.seen.message(self.signal, false, request.get_ref());
            std::future::ready(Ok(Response::new(())))
        }
    }

    type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    macro_rules! service {
        ($ty:ident, $name:literal) => {
            #[derive(Clone)]
            struct $ty(Export, usize);

            impl NamedService for $ty {
                const NAME: &'static str = $name;
            }

            impl tonic::codegen::Service<http::Request<Body>> for $ty {
                type Response = http::Response<Body>;
                type Error = Infallible;
                type Future = Answer;
                fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                    Poll::Ready(Ok(()))
                }
                fn call(&mut self, req: http::Request<Body>) -> Answer {
                    let (export, limit) = (self.0.clone(), self.1);
                    Box::pin(async move {
                        let mut grpc = Grpc::new(Raw)
                            .accept_compressed(CompressionEncoding::Gzip)
                            .accept_compressed(CompressionEncoding::Zstd)
                            .max_decoding_message_size(limit);
                        Ok(grpc.unary(export, req).await)
                    })
                }
            }
        };
    }

    service!(Traces, "opentelemetry.proto.collector.trace.v1.TraceService");
    service!(Logs, "opentelemetry.proto.collector.logs.v1.LogsService");
    service!(Metrics, "opentelemetry.proto.collector.metrics.v1.MetricsService");

    pub async fn serve(args: &SinkArgs, seen: Arc<Seen>) -> Result<(), Error> {
        let limit = args.max_message_mib << 20;
        let export = |signal| Export { signal, seen: seen.clone() };
        // Windows as a tuned receiver has them; tonic's default is 64 KiB.
        tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(args.max_frame_kib.map(|k| (k << 10).min(MAX_FRAME)))
            .add_service(Traces(export(Signal::Traces), limit))
            .add_service(Logs(export(Signal::Logs), limit))
            .add_service(Metrics(export(Signal::Metrics), limit))
            .serve(args.listen)
            .await?;
        Ok(())
    }
}

mod h2_sink {
    use bytes::{Bytes, BytesMut};
    use h2::client::SendRequest;
    use http::{HeaderMap, HeaderValue, Response};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::load;

    #[derive(Clone)]
    struct Downstream {
        conn: SendRequest<Bytes>,
        to: SocketAddr,
    }

    pub async fn serve(args: &SinkArgs, seen: Arc<Seen>) -> Result<(), Error> {
        let listener = TcpListener::bind(args.listen).await?;
        let max_frame = (args.max_frame_kib.unwrap_or(1024) << 10).min(MAX_FRAME);
        let down = match args.forward {
            Some(to) => Some(Downstream { conn: load::connect(to).await?, to }),
            None => None,
        };
        loop {
            let (tcp, _) = listener.accept().await?;
            let (seen, down) = (seen.clone(), down.clone());
            tokio::spawn(async move {
                if let Err(e) = connection(tcp, max_frame, seen, down).await {
                    eprintln!("connection: {e}");
                }
            });
        }
    }

    async fn connection(tcp: TcpStream, max_frame: u32, seen: Arc<Seen>, down: Option<Downstream>) -> Result<(), Error> {
        tcp.set_nodelay(true)?;
        let mut conn = h2::server::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(max_frame)
            .max_concurrent_streams(1024)
            .handshake::<_, Bytes>(tcp)
            .await?;
        while let Some(next) = conn.accept().await {
            let (req, mut respond) = next?;
            let (seen, down) = (seen.clone(), down.clone());
            tokio::spawn(async move {
                let signal = Signal::from_path(req.uri().path());
                let mut body = req.into_body();
                let mut message = BytesMut::new();
                let mut first: Option<Bytes> = None;
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    // A message that came in one frame needs no copy.
                    match (&mut first, message.is_empty()) {
                        (None, true) => first = Some(data),
                        (Some(f), _) => {
                            message.extend_from_slice(f);
                            message.extend_from_slice(&data);
                            first = None;
                        }
                        (None, false) => message.extend_from_slice(&data),
                    }
                }
                let whole = first.unwrap_or_else(|| message.freeze());
                let status = match signal {
                    Some(signal) if whole.len() >= 5 => {
                        seen.message(signal, whole[0] != 0, &whole[5..]);
                        match down {
                            Some(down) => pass_on(down, signal, whole).await,
                            None => "0",
                        }
                    }
                    _ => "12",
                };
                let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a fixed response");
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                if let Ok(mut stream) = respond.send_response(head, false) {
                    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
                    let _ = stream.send_trailers(trailers);
                }
            });
        }
        Ok(())
    }

    async fn pass_on(mut down: Downstream, signal: Signal, whole: Bytes) -> &'static str {
        // Compressed messages would also need their grpc-encoding passed on.
        if whole[0] != 0 {
            return "12";
        }
        let uri = format!("http://{}{}", down.to, signal.path());
        match load::export(&mut down.conn, &uri, None, whole).await {
            Ok(()) => "0",
            Err(e) => {
                eprintln!("downstream: {e}");
                "14"
            }
        }
    }
}
