//! A floor, not a server: the least HTTP/2 that an OTLP/gRPC client accepts,
//! on blocking sockets, one thread a connection. Large frames and windows are
//! offered so that a request comes as one DATA frame, which is then looked at
//! where the kernel put it. Header blocks are not decoded: the signal is taken
//! to be traces.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use crate::{load::Error, sink::Seen, wire::Signal};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_FRAME: usize = (1 << 24) - 1;
const WINDOW: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub fn serve(listen: SocketAddr, seen: Arc<Seen>) -> Result<(), Error> {
    let listener = TcpListener::bind(listen)?;
    for tcp in listener.incoming() {
        let tcp = tcp?;
        let seen = seen.clone();
        std::thread::spawn(move || {
            if let Err(e) = connection(tcp, &seen)
                && e.kind() != io::ErrorKind::UnexpectedEof
            {
                eprintln!("connection: {e}");
            }
        });
    }
    Ok(())
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let n = payload.len() as u32;
    out.extend_from_slice(&n.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Headers, an empty message, and trailers, for one stream.
fn answer(out: &mut Vec<u8>, stream: u32) {
    const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
    const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
    frame(out, HEADERS, 0x4, stream, HEAD);
    frame(out, DATA, 0, stream, &[0; 5]);
    frame(out, HEADERS, 0x5, stream, TRAILERS);
}

struct Partial {
    stream: u32,
    body: Vec<u8>,
}

fn connection(mut tcp: TcpStream, seen: &Seen) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut out = Vec::with_capacity(4096);
    let mut settings = Vec::new();
    for (id, value) in [(3u16, 4096u32), (4, WINDOW), (5, MAX_FRAME as u32)] {
        settings.extend_from_slice(&id.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    frame(&mut out, SETTINGS, 0, 0, &settings);
    frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
    tcp.write_all(&out)?;
    out.clear();

    let mut preface = [0; PREFACE.len()];
    tcp.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Err(io::Error::other("not HTTP/2"));
    }

    // Unread bytes are buf[start..end].
    let mut buf = vec![0u8; 1 << 20];
    let (mut start, mut end) = (0, 0);
    let mut consumed: u32 = 0;
    let mut partial: Vec<Partial> = Vec::new();
    loop {
        // All whole frames in the buffer.
        while end - start >= 9 {
            let h = &buf[start..start + 9];
            let n = u32::from_be_bytes([0, h[0], h[1], h[2]]) as usize;
            let (kind, flags) = (h[3], h[4]);
            let stream = u32::from_be_bytes([h[5], h[6], h[7], h[8]]) & 0x7fff_ffff;
            if end - start < 9 + n {
                if 9 + n > buf.len() {
                    buf.resize((9 + n).next_power_of_two(), 0);
                }
                break;
            }
            let payload = &buf[start + 9..start + 9 + n];
            match kind {
                DATA => {
                    consumed += n as u32;
                    let last = flags & 1 != 0;
                    let at = partial.iter().position(|p| p.stream == stream);
                    match (at, last) {
                        (None, true) => whole(seen, payload),
                        (Some(i), true) => {
                            let mut p = partial.swap_remove(i);
                            p.body.extend_from_slice(payload);
                            whole(seen, &p.body);
                        }
                        (None, false) => partial.push(Partial { stream, body: payload.to_vec() }),
                        (Some(i), false) => partial[i].body.extend_from_slice(payload),
                    }
                    if last {
                        answer(&mut out, stream);
                    }
                }
                SETTINGS if flags & 1 == 0 => frame(&mut out, SETTINGS, 1, 0, &[]),
                PING if flags & 1 == 0 => {
                    let echo: [u8; 8] = payload.try_into().map_err(io::Error::other)?;
                    frame(&mut out, PING, 1, 0, &echo);
                }
                GOAWAY => return Ok(()),
                _ => {}
            }
            start += 9 + n;
        }
        if consumed > WINDOW / 4 {
            frame(&mut out, WINDOW_UPDATE, 0, 0, &consumed.to_be_bytes());
            consumed = 0;
        }
        if !out.is_empty() {
            tcp.write_all(&out)?;
            out.clear();
        }
        if start == end {
            (start, end) = (0, 0);
        } else if end == buf.len() || buf.len() - start < 64 << 10 {
            buf.copy_within(start..end, 0);
            end -= start;
            start = 0;
        }
        let n = tcp.read(&mut buf[end..])?;
        if n == 0 {
            return Ok(());
        }
        end += n;
    }
}

fn whole(seen: &Seen, message: &[u8]) {
    if message.len() >= 5 {
        seen.message(Signal::Traces, message[0] != 0, &message[5..]);
    }
}
