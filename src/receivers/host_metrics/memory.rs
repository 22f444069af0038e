//! Memory, from `/proc/meminfo`.

use procfs_core::Meminfo;

use super::{
    metric::{Edition, Key, Kind, Metric, Value, key, metric, same},
    round::{Part, Scraper},
    sheet::{Chosen, Points},
};

const STATE: Key = key("state", "system.memory.state");
const SLAB_STATE: Key = same("system.memory.linux.slab.state");
const PAGE_STATE: Key = same("system.memory.linux.hugepages.state");

const USAGE: Metric = metric("system.memory.usage", "By", Kind::Level, &[STATE]);
const UTILIZATION: Metric = metric("system.memory.utilization", "1", Kind::Gauge, &[STATE]).off();
const LIMIT: Metric = metric("system.memory.limit", "By", Kind::Level, &[]).off();
const PAGE_SIZE: Metric = metric("system.memory.page_size", "By", Kind::Gauge, &[]).off();
const AVAILABLE: Metric =
    metric("system.linux.memory.available", "By", Kind::Level, &[]).off().renamed("system.memory.linux.available", "By");
const DIRTY: Metric = metric("system.linux.memory.dirty", "By", Kind::Level, &[]).off();
const SHARED: Metric = metric("system.memory.linux.shared", "By", Kind::Level, &[]).off();
/// By the older conventions a part of [`USAGE`].
const SLAB: Metric = metric("system.memory.linux.slab.usage", "By", Kind::Level, &[SLAB_STATE]).new_only();
const PAGES: Metric = metric("system.memory.linux.hugepages.limit", "{page}", Kind::Level, &[]).off();
const PAGES_SIZE: Metric = metric("system.memory.linux.hugepages.page_size", "By", Kind::Level, &[]).off();
const PAGES_RESERVED: Metric = metric("system.memory.linux.hugepages.reserved", "{page}", Kind::Level, &[]).off();
const PAGES_SURPLUS: Metric = metric("system.memory.linux.hugepages.surplus", "{page}", Kind::Level, &[]).off();
const PAGES_USAGE: Metric = metric("system.memory.linux.hugepages.usage", "{page}", Kind::Level, &[PAGE_STATE]).off();
const PAGES_UTILIZATION: Metric = metric("system.memory.linux.hugepages.utilization", "1", Kind::Gauge, &[PAGE_STATE]).off();

pub(super) const METRICS: &[Metric] = &[
    USAGE,
    UTILIZATION,
    LIMIT,
    PAGE_SIZE,
    AVAILABLE,
    DIRTY,
    SHARED,
    SLAB,
    PAGES,
    PAGES_SIZE,
    PAGES_RESERVED,
    PAGES_SURPLUS,
    PAGES_USAGE,
    PAGES_UTILIZATION,
];

pub(super) struct Memory {
    pub(super) chosen: Chosen,
}

/// The states of the memory, in bytes.
fn states(info: &Meminfo, edition: Edition) -> impl Iterator<Item = (Value<'static>, u64)> {
    let reclaimable = info.s_reclaimable.unwrap_or(0);
    // Before Linux 3.14 the kernel did not say what is available.
    let available = info.mem_available.unwrap_or(info.mem_free.saturating_add(info.buffers).saturating_add(info.cached));
    let slab = edition == Edition::V0;
    [
        (Value::Text("used"), info.mem_total.saturating_sub(available), true),
        (Value::Text("free"), info.mem_free, true),
        (Value::Words("buffered", "buffers"), info.buffers, true),
        (Value::Text("cached"), info.cached.saturating_add(reclaimable), true),
        (Value::Text("slab_reclaimable"), reclaimable, slab),
        (Value::Text("slab_unreclaimable"), info.s_unreclaim.unwrap_or(0), slab),
    ]
    .into_iter()
    .filter_map(|(state, bytes, said)| said.then_some((state, bytes)))
}

fn level(value: Option<u64>) -> impl Fn(&mut Points<'_>) {
    move |points| {
        if let Some(value) = value {
            points.int(value, &[]);
        }
    }
}

impl Scraper for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(info) = part.read(1, part.host.parsed::<Meminfo>("proc/meminfo")) else { return };
        let page_bytes = part.host.page_bytes;
        let huge = info
            .hugepages_total
            .zip(info.hugepages_free)
            .map(|(all, free)| (all, [("free", free), ("used", all.saturating_sub(free))]));
        part.write(&self.chosen, |metrics| {
            metrics.write(&USAGE, |points| {
                for (state, bytes) in states(&info, points.edition) {
                    points.int(bytes, &[(STATE, state)]);
                }
            });
            metrics.write(&UTILIZATION, |points| {
                for (state, bytes) in states(&info, points.edition) {
                    points.double(bytes as f64 / info.mem_total as f64, &[(STATE, state)]);
                }
            });
            metrics.write(&LIMIT, level(Some(info.mem_total)));
            metrics.write(&PAGE_SIZE, level(Some(page_bytes)));
            metrics.write(&AVAILABLE, level(info.mem_available));
            metrics.write(&DIRTY, level(Some(info.dirty)));
            metrics.write(&SHARED, level(info.shmem));
            metrics.write(&SLAB, |points| {
                for (state, bytes) in [("reclaimable", info.s_reclaimable), ("unreclaimable", info.s_unreclaim)] {
                    if let Some(bytes) = bytes {
                        points.int(bytes, &[(SLAB_STATE, Value::Text(state))]);
                    }
                }
            });
            metrics.write(&PAGES, level(info.hugepages_total));
            metrics.write(&PAGES_SIZE, level(info.hugepagesize));
            metrics.write(&PAGES_RESERVED, level(info.hugepages_rsvd));
            metrics.write(&PAGES_SURPLUS, level(info.hugepages_surp));
            metrics.write(&PAGES_USAGE, |points| {
                for (state, pages) in huge.iter().flat_map(|(_, states)| states) {
                    points.int(*pages, &[(PAGE_STATE, Value::Text(state))]);
                }
            });
            metrics.write(&PAGES_UTILIZATION, |points| {
                for (all, states) in huge.iter().filter(|(all, _)| *all > 0) {
                    for (state, pages) in states {
                        points.double(*pages as f64 / *all as f64, &[(PAGE_STATE, Value::Text(state))]);
                    }
                }
            });
        });
    }
}
