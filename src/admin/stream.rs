//! The answer to a tap: lines as they come, and what was left out.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::VERSION;
use crate::{
    runtime::Shutdown,
    tap::{Ask, End, Ready, Tap},
    transport::server::{Body, Error},
};

/// How often what was left out is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

struct Lines {
    tap: Tap,
    stop: Shutdown,
    /// When it ends by itself.
    end: Option<Instant>,
    /// When what was left out is told next.
    tell: Instant,
    at: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ready,
    Lines,
    Over,
}

pub(super) fn body(tap: Tap, ask: &Ask, stop: Shutdown) -> Body {
    let now = Instant::now();
    let lasts = ask.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let end = lasts.and_then(|lasts| now.checked_add(lasts));
    let lines = Lines { tap, stop, end, tell: now + TELL_EVERY, at: Part::Ready };
    let frames = stream::unfold(lines, |mut lines| async move {
        let next = lines.next().await?;
        Some((Ok::<_, Error>(Frame::data(Bytes::from(next))), lines))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Lines {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.at == Part::Ready {
            self.at = Part::Lines;
            let ready = Ready { version: VERSION, weir: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() };
            return Some(line("ready", &ready));
        }
        while self.at == Part::Lines {
            let end = self.end;
            let over = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let reason = tokio::select! {
                biased;
                () = self.stop.cancelled() => "stopping",
                () = over => "seconds",
                () = sleep_until(self.tell) => {
                    self.tell = Instant::now() + TELL_EVERY;
                    match self.tap.lost() {
                        Some(lost) => return Some(line("lost", &lost)),
                        None => continue,
                    }
                }
                lines = self.tap.lines() => match lines {
                    Some(lines) => return Some(lines),
                    None => "lines",
                }
            };
            self.at = Part::Over;
            let mut last = self.tap.lines().now_or_never().flatten().unwrap_or_default();
            if let Some(lost) = self.tap.lost() {
                last.extend(line("lost", &lost));
            }
            last.extend(line("end", &End { reason: reason.into() }));
            return Some(last);
        }
        None
    }
}

/// `{"what": …}`
fn line(what: &str, value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::json!({ what: value }).to_string().into_bytes();
    line.push(b'\n');
    line
}
