//! Block devices, from `/proc/diskstats`.

use procfs_core::DiskStat;

use super::{
    filter::Filter,
    host::Fault,
    metric::{Key, Kind, Metric, Value, key, metric},
    round::{Part, Scraper},
    sheet::Chosen,
};

const DEVICE: Key = key("device", "system.device");
const DIRECTION: Key = key("direction", "disk.io.direction");

const IO: Metric = metric("system.disk.io", "By", Kind::Counter, &[DEVICE, DIRECTION]);
const OPERATIONS: Metric = metric("system.disk.operations", "{operations}", Kind::Counter, &[DEVICE, DIRECTION])
    .renamed("system.disk.operations", "{operation}");
const IO_TIME: Metric = metric("system.disk.io_time", "s", Kind::Counter, &[DEVICE]);
const OPERATION_TIME: Metric = metric("system.disk.operation_time", "s", Kind::Counter, &[DEVICE, DIRECTION]);
const MERGED: Metric = metric("system.disk.merged", "{operations}", Kind::Counter, &[DEVICE, DIRECTION])
    .renamed("system.disk.merged", "{operation}");
const PENDING: Metric = metric("system.disk.pending_operations", "{operations}", Kind::Level, &[DEVICE]).old_only();
const WEIGHTED: Metric = metric("system.disk.weighted_io_time", "s", Kind::Counter, &[DEVICE]).old_only();

pub(super) const METRICS: &[Metric] = &[IO, OPERATIONS, IO_TIME, OPERATION_TIME, MERGED, PENDING, WEIGHTED];

const FILE: &str = "proc/diskstats";
/// What the kernel counts in, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;

pub(super) struct Disk {
    pub(super) chosen: Chosen,
    pub(super) filter: Filter,
}

impl Disk {
    /// Devices that were ever used, line by line: one that cannot be read costs itself.
    fn devices(&self, part: &mut Part<'_>) -> Option<Vec<DiskStat>> {
        let text = part.read(METRICS.len() as u64, part.host.text(FILE))?;
        let mut devices = Vec::new();
        for line in text.lines() {
            match DiskStat::from_line(line) {
                Ok(disk) => {
                    let used = disk.reads | disk.writes | disk.time_in_progress | disk.in_progress != 0;
                    if used && self.filter.takes(&disk.name) {
                        devices.push(disk);
                    }
                }
                Err(_) => part.missing(METRICS.len() as u64, Fault::garbled(FILE, "a line is cut off")),
            }
        }
        Some(devices)
    }
}

const READ: Value<'static> = Value::Text("read");
const WRITE: Value<'static> = Value::Text("write");

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

impl Scraper for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let Some(disks) = self.devices(part) else { return };
        part.write(&self.chosen, |metrics| {
            let mut both = |metric: &Metric, of: fn(&DiskStat) -> (u64, u64)| {
                metrics.write(metric, |points| {
                    for disk in &disks {
                        let (read, written) = of(disk);
                        points.int(read, &[(DEVICE, Value::Text(&disk.name)), (DIRECTION, READ)]);
                        points.int(written, &[(DEVICE, Value::Text(&disk.name)), (DIRECTION, WRITE)]);
                    }
                });
            };
            both(&IO, |disk| (disk.sectors_read.wrapping_mul(SECTOR_BYTES), disk.sectors_written.wrapping_mul(SECTOR_BYTES)));
            both(&OPERATIONS, |disk| (disk.reads, disk.writes));
            both(&MERGED, |disk| (disk.merged, disk.writes_merged));
            metrics.write(&OPERATION_TIME, |points| {
                for disk in &disks {
                    points.double(seconds(disk.time_reading), &[(DEVICE, Value::Text(&disk.name)), (DIRECTION, READ)]);
                    points.double(seconds(disk.time_writing), &[(DEVICE, Value::Text(&disk.name)), (DIRECTION, WRITE)]);
                }
            });
            for (metric, of) in [
                (IO_TIME, (|disk| disk.time_in_progress) as fn(&DiskStat) -> u64),
                (WEIGHTED, |disk| disk.weighted_time_in_progress),
            ] {
                metrics.write(&metric, |points| {
                    for disk in &disks {
                        points.double(seconds(of(disk)), &[(DEVICE, Value::Text(&disk.name))]);
                    }
                });
            }
            metrics.write(&PENDING, |points| {
                for disk in &disks {
                    points.int(disk.in_progress, &[(DEVICE, Value::Text(&disk.name))]);
                }
            });
        });
    }
}
