//! Targets by name: each address that a name has is one.
//!
//! Spec: Prometheus, `dns_sd_config`, of it A and AAAA. A name that cannot be looked up keeps the targets that it had; one that does not
//! exist has none.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::sleep;

use super::{Group, Surroundings, Teller};
use crate::transport::client::{Resolve as _, SystemResolver};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Record {
    A,
    Aaaa,
}

/// One of `dns_sd_configs`.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Dns {
    pub(in super::super) names: Vec<String>,
    pub(in super::super) record: Record,
    pub(in super::super) port: u16,
    pub(in super::super) refresh: Duration,
}

impl Dns {
    pub(super) async fn run(&self, number: usize, around: &Surroundings) {
        let mut teller = Teller::new(around);
        let mut known: Vec<Group> = vec![Group::default(); self.names.len()];
        let mut said = false;
        loop {
            let mut changed = !std::mem::replace(&mut said, true);
            let mut fault = None;
            for (name, known) in self.names.iter().zip(&mut known) {
                match SystemResolver.resolve(name, self.port).await {
                    Ok(addresses) => {
                        let group = self.group(name, &addresses);
                        changed |= *known != group;
                        *known = group;
                    }
                    Err(error) => {
                        if is_absent(&error) {
                            changed |= !known.targets.is_empty();
                            known.targets.clear();
                        }
                        fault = fault.or(Some((name, error.to_string())));
                    }
                }
            }
            match fault {
                Some((name, problem)) => teller.failed(name, &problem),
                None => teller.worked("dns"),
            }
            if changed && around.said.send((number, known.clone())).await.is_err() {
                return;
            }
            sleep(self.refresh).await;
        }
    }

    fn group(&self, name: &str, addresses: &[SocketAddr]) -> Group {
        let wanted = |address: &&SocketAddr| match address.ip() {
            IpAddr::V4(_) => self.record == Record::A,
            IpAddr::V6(_) => self.record == Record::Aaaa,
        };
        let mut targets: Vec<String> = addresses.iter().filter(wanted).map(ToString::to_string).collect();
        // Servers turn their answers round; that is no change.
        targets.sort();
        targets.dedup();
        let mut group = Group { targets, ..Group::default() };
        group.labels.set("__meta_dns_name", name.to_owned());
        group
    }
}

/// Whether the answer was that there is no such name, or no address of it. The system's resolver says it in words only: those of glibc and
/// musl, which are English as long as nobody sets a locale.
fn is_absent(error: &io::Error) -> bool {
    const WORDS: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ];
    let text = error.to_string();
    error.kind() == io::ErrorKind::NotFound || WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_gone_is_not_one_that_cannot_be_looked_up() {
        let said = |words: &str| is_absent(&io::Error::other(format!("failed to lookup address information: {words}")));
        assert!(said("Name or service not known") && said("Name does not resolve"));
        assert!(!said("Temporary failure in name resolution") && !said("Try again"));
    }
}
