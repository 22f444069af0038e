//! A page on its way out: filled in chunks, compressed where asked for, handed on piece by piece.
//!
//! Full: `Outlet::send` waits while the client is slow; nothing more than a chunk is held here.
//! Lost: what is written after the client went away.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

/// Bytes of text before they are sent or compressed.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Takes the finished pieces of a page.
pub(crate) trait Outlet {
    fn send(&mut self, piece: Bytes) -> Result<(), Gone>;
}

impl<F: FnMut(Bytes) -> Result<(), Gone>> Outlet for F {
    fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        self(piece)
    }
}

/// Where the formats write. `buffer` is open to them; after each series they call [`Sink::settle`].
pub(crate) struct Sink<'a> {
    pub(crate) buffer: Vec<u8>,
    outlet: &'a mut dyn Outlet,
    gzip: Option<GzEncoder<Vec<u8>>>,
    gone: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(outlet: &'a mut dyn Outlet, gzip: bool) -> Self {
        Self {
            buffer: Vec::with_capacity(CHUNK + CHUNK / 4),
            outlet,
            // Level 1: each level above costs a scrape more than it saves on a network worth scraping over.
            gzip: gzip.then(|| GzEncoder::new(Vec::with_capacity(CHUNK), Compression::new(1))),
            gone: false,
        }
    }

    pub(crate) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Sends what is there once it is a chunk.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.gone {
            self.buffer.clear();
            return;
        }
        let sent = match &mut self.gzip {
            None => {
                let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + CHUNK / 4));
                self.outlet.send(Bytes::from(full))
            }
            Some(encoder) => {
                let written = encoder.write_all(&self.buffer);
                self.buffer.clear();
                match written {
                    Ok(()) if encoder.get_ref().len() >= CHUNK / 2 => {
                        let packed = std::mem::replace(encoder.get_mut(), Vec::with_capacity(CHUNK));
                        self.outlet.send(Bytes::from(packed))
                    }
                    Ok(()) => Ok(()),
                    Err(_) => Err(Gone),
                }
            }
        };
        self.gone = sent.is_err();
    }

    /// Sends the rest.
    pub(crate) fn finish(mut self) -> Result<(), Gone> {
        self.flush();
        if self.gone {
            return Err(Gone);
        }
        match self.gzip {
            None => Ok(()),
            Some(encoder) => self.outlet.send(Bytes::from(encoder.finish().map_err(|_| Gone)?)),
        }
    }
}
