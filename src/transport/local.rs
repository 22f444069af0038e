//! Asks a process of this machine through its socket file: one request, one answer, read as it comes. For commands; it blocks.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _},
    os::unix::net::{SocketAddr, UnixStream},
    path::Path,
    time::Duration,
};

/// Of a status line and each header.
const LINE_BYTES_MAX: u64 = 16 << 10;
const HEADERS_MAX: usize = 100;
/// How long the other side may take to answer; what follows the header may take as long as it likes.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// An answer, whose body is read until its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: BufReader<UnixStream>,
}

impl Answer {
    /// The whole body, if it is no longer than this.
    pub fn whole(self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
        }
        Ok(bytes)
    }
}

/// Sends a request: a GET, or a POST where there is a body.
///
/// # Errors
/// `NotFound` where there is no such file, `ConnectionRefused` where nobody listens on it, `InvalidInput` where its name is too long.
pub fn ask(socket: &Path, path: &str, body: Option<&[u8]>) -> io::Result<Answer> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_pathname(socket)?)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    // HTTP/1.0: the body ends with the connection and comes as it is.
    let head = match body {
        None => format!("GET {path} HTTP/1.0\r\nhost: weir\r\n\r\n"),
        Some(body) => format!(
            "POST {path} HTTP/1.0\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ),
    };
    stream.write_all(head.as_bytes())?;
    match stream.write_all(body.unwrap_or_default()) {
        // It is refused before all of it is there, and the answer says why.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        written => written?,
    }
    let mut answer = BufReader::new(stream);
    let first = line(&mut answer)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let Some(status) = status.filter(|_| first.starts_with("HTTP/1.")) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "what answers there does not speak HTTP"));
    };
    for _ in 0..HEADERS_MAX {
        if line(&mut answer)?.is_empty() {
            answer.get_ref().set_read_timeout(None)?;
            return Ok(Answer { status, body: answer });
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "the answer has too many headers"))
}

fn line(answer: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    answer.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer ends in its header"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "the header is no text"))
}
