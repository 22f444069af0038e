//! The floor under every protocol: the same payloads over bare TCP, each with
//! a four-byte length before it and one byte of answer. `otlpload tcp`
//! measures little more than the kernel's copy in and out.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    load::{Error, ShapeArgs},
    payload,
    proc::{self, Target},
    sink::Seen,
};

pub fn serve(listen: SocketAddr, seen: Arc<Seen>) -> Result<(), Error> {
    let listener = TcpListener::bind(listen)?;
    for tcp in listener.incoming() {
        let tcp = tcp?;
        let seen = seen.clone();
        std::thread::spawn(move || {
            let _ = connection(tcp, &seen);
        });
    }
    Ok(())
}

fn connection(tcp: TcpStream, seen: &Seen) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut answers = tcp.try_clone()?;
    let mut input = BufReader::with_capacity(256 << 10, tcp);
    loop {
        let mut head = [0; 4];
        input.read_exact(&mut head)?;
        let mut left = u32::from_be_bytes(head) as usize;
        while left > 0 {
            let have = input.fill_buf()?.len().min(left);
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            input.consume(have);
            left -= have;
        }
        seen.message(crate::wire::Signal::Traces, false, &[]);
        answers.write_all(&[0])?;
    }
}

#[derive(Args, Clone)]
pub struct TcpArgs {
    #[arg(long, default_value = "127.0.0.1:4319")]
    pub to: SocketAddr,
    #[command(flatten)]
    pub shape: ShapeArgs,
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Messages sent ahead of their answers.
    #[arg(long, default_value_t = 4)]
    pub in_flight: u64,
    #[arg(long = "pid")]
    pub pids: Vec<Target>,
}

pub fn run(args: &TcpArgs) -> Result<(), Error> {
    if !args.to.ip().is_loopback() {
        return Err("the load goes to loopback addresses only".into());
    }
    let set = payload::build(&args.shape.shape(false));
    let mut tcp = TcpStream::connect(args.to)?;
    tcp.set_nodelay(true)?;
    let before: Vec<_> = args.pids.iter().map(|t| proc::read(t.pid)).collect::<Result<_, _>>()?;
    let own = proc::read(std::process::id())?;
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(args.duration);
    let (mut sent, mut answered, mut items, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    let mut answer = [0u8; 256];
    let bodies: Vec<Vec<u8>> = set
        .payloads
        .iter()
        .map(|p| {
            let b = p.framed();
            [&(b.len() as u32).to_be_bytes(), &b[..]].concat()
        })
        .collect();
    while Instant::now() < until {
        let i = sent as usize % bodies.len();
        tcp.write_all(&bodies[i])?;
        sent += 1;
        items += set.payloads[i].items;
        bytes += bodies[i].len() as u64;
        while sent - answered >= args.in_flight {
            answered += tcp.read(&mut answer)? as u64;
        }
    }
    while answered < sent {
        answered += tcp.read(&mut answer)? as u64;
    }
    let wall = start.elapsed().as_secs_f64();
    let millions = items as f64 / 1e6;
    println!(
        "bare TCP: {:.0} messages/s  {:.0} items/s  {:.1} MB/s",
        sent as f64 / wall,
        items as f64 / wall,
        bytes as f64 / wall / 1e6
    );
    let own = proc::read(std::process::id())?.cpu - own.cpu;
    let show = |name: &str, cpu: f64| {
        println!("  {name}: {:.4} CPU-s per 1M items, {:.3} CPU-ms per MB", cpu / millions, cpu * 1e3 / (bytes as f64 / 1e6));
    };
    for (t, b) in args.pids.iter().zip(before) {
        show(&t.name, proc::read(t.pid)?.cpu - b.cpu);
    }
    show("generator", own);
    Ok(())
}
