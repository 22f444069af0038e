//! Interfaces from `/proc/net/dev`, TCP connections from `/proc/net/tcp` and `tcp6`, the table of tracked connections.
//!
//! Below a `root_path` it is the network of the host's first process: `/proc/net` would be our own, and is told of where the other cannot be read.

use std::path::Path;

use procfs_core::{
    FromBufReadSI as _,
    net::{DeviceStatus, InterfaceDeviceStatus, TcpNetEntries, TcpState},
};

use super::{
    filter::Filter,
    host::{Fault, Host},
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const INTERFACE: Key = key("device", "network.interface.name");
/// The newer conventions call the interface so for packets.
const DEVICE: Key = key("device", "system.device");
const DIRECTION: Key = key("direction", "network.io.direction");
const PROTOCOL: Key = key("protocol", "network.transport");
const STATE: Key = key("state", "network.connection.state");

const IO: Metric = metric("system.network.io", "By", Kind::Counter, &[INTERFACE, DIRECTION]);
const PACKETS: Metric = metric("system.network.packets", "{packets}", Kind::Counter, &[DEVICE, DIRECTION])
    .renamed("system.network.packet.count", "{packet}");
const DROPPED: Metric = metric("system.network.dropped", "{packets}", Kind::Counter, &[INTERFACE, DIRECTION])
    .renamed("system.network.packet.dropped", "{packet}");
const ERRORS: Metric = metric("system.network.errors", "{errors}", Kind::Counter, &[INTERFACE, DIRECTION])
    .renamed("system.network.errors", "{error}");
const CONNECTIONS: Metric = metric("system.network.connections", "{connections}", Kind::Level, &[PROTOCOL, STATE])
    .renamed("system.network.connection.count", "{connection}");
const TRACKED: Metric = metric("system.network.conntrack.count", "{entries}", Kind::Level, &[]).off();
const TRACKED_MAX: Metric = metric("system.network.conntrack.max", "{entries}", Kind::Level, &[]).off();

pub(super) const METRICS: &[Metric] = &[IO, PACKETS, DROPPED, ERRORS, CONNECTIONS, TRACKED, TRACKED_MAX];

const STATES: [(TcpState, &str, &str); 12] = [
    (TcpState::Established, "ESTABLISHED", "established"),
    (TcpState::SynSent, "SYN_SENT", "syn_sent"),
    (TcpState::SynRecv, "SYN_RECV", "syn_received"),
    (TcpState::FinWait1, "FIN_WAIT_1", "fin_wait_1"),
    (TcpState::FinWait2, "FIN_WAIT_2", "fin_wait_2"),
    (TcpState::TimeWait, "TIME_WAIT", "time_wait"),
    (TcpState::Close, "CLOSE", "closed"),
    (TcpState::CloseWait, "CLOSE_WAIT", "close_wait"),
    (TcpState::LastAck, "LAST_ACK", "last_ack"),
    (TcpState::Listen, "LISTEN", "listen"),
    (TcpState::Closing, "CLOSING", "closing"),
    // A connection that begins: the conventions have one word for both.
    (TcpState::NewSynRecv, "SYN_RECV", "syn_received"),
];

pub(super) struct Network {
    pub(super) chosen: Chosen,
    pub(super) filter: Filter,
    /// Whether it was said that the network is not the host's.
    pub(super) told: bool,
}

/// Connections by state, in the order of [`STATES`].
fn connections(host: &Host, folder: &str) -> Result<[u64; STATES.len()], Fault> {
    let system = host.system();
    let mut counts = [0_u64; STATES.len()];
    for name in ["tcp", "tcp6"] {
        let counted = host.in_pieces(&format!("{folder}/{name}"), |lines| {
            for entry in TcpNetEntries::from_buf_read(lines, &system)?.0 {
                // The two that begin count as one.
                let at = STATES.iter().position(|(state, ..)| *state == entry.state).unwrap_or_default();
                let at = if at == STATES.len() - 1 { 2 } else { at };
                if let Some(count) = counts.get_mut(at) {
                    *count += 1;
                }
            }
            Ok(())
        });
        match counted {
            // A host without IPv6 has no such table.
            Err(fault) if name == "tcp6" && fault.is_gone() => {}
            counted => counted?,
        }
    }
    Ok(counts)
}

impl Network {
    /// The folder of the network that is meant.
    fn folder(&mut self, host: &Host) -> &'static str {
        const OURS: &str = "proc/net";
        const OF_HOST: &str = "proc/1/net";
        if host.root() == Path::new("/") {
            return OURS;
        }
        match host.bytes("proc/1/net/dev") {
            Ok(_) => OF_HOST,
            Err(fault) => {
                if !self.told {
                    self.told = true;
                    tracing::warn!(
                        error = %fault,
                        "the network of the host cannot be looked into; told is of the one that weir is in, which in a container is another"
                    );
                }
                OURS
            }
        }
    }

    fn interfaces(&self, part: &mut Part<'_>, folder: &str) {
        let path = format!("{folder}/dev");
        let Some(read) = part.read(4, part.host.parsed::<InterfaceDeviceStatus>(&path)) else { return };
        let mut interfaces: Vec<DeviceStatus> = read.0.into_values().filter(|one| self.filter.takes(&one.name)).collect();
        interfaces.sort_by(|one, other| one.name.cmp(&other.name));
        part.write(&self.chosen, |metrics| {
            let counts: [(Metric, Key, fn(&DeviceStatus) -> (u64, u64)); 4] = [
                (IO, INTERFACE, |one| (one.recv_bytes, one.sent_bytes)),
                (PACKETS, DEVICE, |one| (one.recv_packets, one.sent_packets)),
                (DROPPED, INTERFACE, |one| (one.recv_drop, one.sent_drop)),
                (ERRORS, INTERFACE, |one| (one.recv_errs, one.sent_errs)),
            ];
            for (metric, name, of) in counts {
                metrics.write(&metric, |points| {
                    for one in &interfaces {
                        let (received, sent) = of(one);
                        for (direction, count) in [("receive", received), ("transmit", sent)] {
                            points.int(count, &[(name, Value::Text(&one.name)), (DIRECTION, Value::Text(direction))]);
                        }
                    }
                });
            }
        });
    }
}

impl Scraper for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let folder = self.folder(part.host);
        if self.chosen.has_any(&[&IO, &PACKETS, &DROPPED, &ERRORS]) {
            self.interfaces(part, folder);
        }
        if self.chosen.has(&CONNECTIONS)
            && let Some(counts) = part.read(1, connections(part.host, folder))
        {
            part.write(&self.chosen, |metrics| {
                metrics.write(&CONNECTIONS, |points| {
                    for ((_, old, new), count) in STATES.iter().zip(counts).take(STATES.len() - 1) {
                        points.int(count, &[(PROTOCOL, Value::Text("tcp")), (STATE, Value::Words(old, new))]);
                    }
                });
            });
        }
        for (metric, path) in
            [(TRACKED, "proc/sys/net/netfilter/nf_conntrack_count"), (TRACKED_MAX, "proc/sys/net/netfilter/nf_conntrack_max")]
        {
            if self.chosen.has(&metric)
                && let Some(entries) = part.read(1, part.host.number(path))
            {
                part.write(&self.chosen, |metrics| metrics.write(&metric, |points| points.int(entries, &[])));
            }
        }
    }
}
