//! The listening sockets of a process: who takes another's place takes over its sockets, too, and nobody who connects meanwhile is refused.
//!
//! Sockets are held weakly: one closes with the last who serves it. What a socket is, is a matter of `transport`.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// A socket, whatever it is.
pub type AnySocket = Arc<dyn Any + Send + Sync>;

/// Who listens where.
#[derive(Default)]
pub struct Sockets(Mutex<Vec<Open>>);

struct Open {
    /// The setting that it was opened for: `receivers::otlp::protocols::grpc::endpoint`.
    key: String,
    /// As it was asked for: before the system picked a port.
    address: String,
    socket: Weak<dyn Any + Send + Sync>,
    stage: Stage,
}

/// How far a socket is on its way from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    /// Its holder is about to end.
    Left,
    /// It was taken over from its holder.
    Taken,
    /// Opened or taken over for one that is about to start.
    New,
}

impl Sockets {
    /// The components whose keys begin like this (`receivers::otlp::`) are about to end: what they listen on may be taken over.
    pub fn begin(&self, leaving: &[String]) {
        let mut open = self.0.lock();
        open.retain(|one| one.socket.strong_count() > 0);
        for one in &mut *open {
            let is_left = leaving.iter().any(|prefix| one.key.starts_with(prefix.as_str()));
            one.stage = if is_left { Stage::Left } else { Stage::Held };
        }
    }

    /// They end.
    pub fn commit(&self) {
        let mut open = self.0.lock();
        open.retain(|one| matches!(one.stage, Stage::Held | Stage::New));
        open.iter_mut().for_each(|one| one.stage = Stage::Held);
    }

    /// They stay, and what was to come in their place does not start.
    pub fn roll_back(&self) {
        let mut open = self.0.lock();
        open.retain(|one| one.stage != Stage::New);
        open.iter_mut().for_each(|one| one.stage = Stage::Held);
    }

    /// A socket of one that is about to end, at this address; where the system was to pick the port, one of the same setting.
    pub fn take(&self, key: &str, address: &str, any_port: bool) -> Option<AnySocket> {
        let mut open = self.0.lock();
        let fits = |one: &&mut Open| one.stage == Stage::Left && one.address == address && (!any_port || one.key == key);
        let found = open.iter_mut().find(fits)?;
        let socket = found.socket.upgrade()?;
        found.stage = Stage::Taken;
        let taken = Open { key: key.to_owned(), address: address.to_owned(), socket: found.socket.clone(), stage: Stage::New };
        open.push(taken);
        Some(socket)
    }

    /// Somebody listens at this address now.
    pub fn opened(&self, key: &str, address: &str, socket: &AnySocket) {
        let open = Open { key: key.to_owned(), address: address.to_owned(), socket: Arc::downgrade(socket), stage: Stage::New };
        self.0.lock().push(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_of_one_that_ends_is_taken_over_and_only_once() {
        let sockets = Sockets::default();
        let (first, second): (AnySocket, AnySocket) = (Arc::new(1), Arc::new(2));
        sockets.opened("receivers::otlp::grpc", "127.0.0.1:1", &first);
        sockets.opened("exporters::prometheus::endpoint", "127.0.0.1:0", &second);
        sockets.commit();
        assert!(sockets.take("receivers::b::grpc", "127.0.0.1:1", false).is_none(), "it is held");
        sockets.begin(&["receivers::otlp::".to_owned()]);
        assert!(sockets.take("exporters::prometheus::endpoint", "127.0.0.1:0", true).is_none(), "this one stays");
        let taken = sockets.take("receivers::b::grpc", "127.0.0.1:1", false);
        assert!(taken.is_some_and(|taken| Arc::ptr_eq(&taken, &first)));
        assert!(sockets.take("receivers::c::grpc", "127.0.0.1:1", false).is_none(), "somebody has it");
        sockets.roll_back();
        sockets.begin(&["receivers::b::".to_owned(), "exporters::prometheus::".to_owned()]);
        assert!(sockets.take("receivers::c::grpc", "127.0.0.1:1", false).is_none(), "it is the first one's again");
        assert!(sockets.take("exporters::other::endpoint", "127.0.0.1:0", true).is_none(), "that is another port");
        assert!(sockets.take("exporters::prometheus::endpoint", "127.0.0.1:0", true).is_some());
    }
}
