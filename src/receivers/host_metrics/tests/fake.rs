//! A host of files whose numbers are known, and what must come out of them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{super::host::Host, Rig};

/// Everything that a scraper can tell of.
pub(super) const ALL: &str = "
collection_interval: 10s
scrapers:
  cpu: {metrics: {system.cpu.utilization: {enabled: true}, system.cpu.frequency: {enabled: true}, system.cpu.physical.count: {enabled: true}}}
  memory: {metrics: {system.memory.utilization: {enabled: true}, system.memory.limit: {enabled: true}, system.memory.page_size: {enabled: true}, system.linux.memory.available: {enabled: true}, system.linux.memory.dirty: {enabled: true}, system.memory.linux.shared: {enabled: true}, system.memory.linux.hugepages.limit: {enabled: true}, system.memory.linux.hugepages.page_size: {enabled: true}, system.memory.linux.hugepages.reserved: {enabled: true}, system.memory.linux.hugepages.surplus: {enabled: true}, system.memory.linux.hugepages.usage: {enabled: true}, system.memory.linux.hugepages.utilization: {enabled: true}}}
  load:
  disk:
  filesystem: {metrics: {system.filesystem.utilization: {enabled: true}}}
  network: {metrics: {system.network.conntrack.count: {enabled: true}, system.network.conntrack.max: {enabled: true}}}
  paging: {metrics: {system.paging.utilization: {enabled: true}}}
  processes:
  process: {resource_attributes: {process.cgroup: {enabled: true}}, metrics: {process.cpu.utilization: {enabled: true}, process.memory.utilization: {enabled: true}, process.disk.operations: {enabled: true}, process.threads: {enabled: true}, process.open_file_descriptors: {enabled: true}, process.context_switches: {enabled: true}, process.paging.faults: {enabled: true}, process.signals_pending: {enabled: true}, process.uptime: {enabled: true}}}
  system:
  cgroup:
";

pub(super) const STAT: &str = "\
cpu  1000 200 300 4000 50 6 7 8 0 0
cpu0 600 100 200 1000 40 3 4 5 0 0
cpu1 400 100 100 3000 10 3 3 3 0 0
intr 12345 0 1
ctxt 999
btime 1700000000
processes 4242
procs_running 3
procs_blocked 1
softirq 1 2 3
";
pub(super) const BOOT: u64 = 1_700_000_000_000_000_000;

const MEMINFO: &str = "\
MemTotal:        8000 kB
MemFree:         1000 kB
MemAvailable:    5000 kB
Buffers:          200 kB
Cached:          3000 kB
SwapCached:         0 kB
Active:             0 kB
Inactive:           0 kB
SwapTotal:       2048 kB
SwapFree:        1024 kB
Dirty:             16 kB
Writeback:          0 kB
Mapped:             0 kB
Shmem:            300 kB
Slab:             500 kB
SReclaimable:     400 kB
SUnreclaim:       100 kB
Committed_AS:       0 kB
VmallocTotal:       0 kB
VmallocUsed:        0 kB
VmallocChunk:       0 kB
HugePages_Total:    4
HugePages_Free:     3
HugePages_Rsvd:     1
HugePages_Surp:     0
Hugepagesize:    2048 kB
";

const DISKSTATS: &str = "\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0
 259       0 nvme0n1 100 10 2000 30 200 20 4000 60 2 70 90 0 0 0 0 5 1
";

const NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0: 5000 50 1 2 0 0 0 0 7000 70 3 4 0 0 0 0
";

const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:9C41 0C 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
";

const MOUNTINFO: &str = "\
21 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw
22 21 0:21 / /proc rw - proc proc rw
23 21 259:1 /var/lib/x /srv/bound rw - ext4 /dev/nvme0n1p1 rw
24 21 259:2 / /my\\040data ro,relatime - xfs /dev/nvme0n1p2 rw
";

pub(super) const VMSTAT: &str = "pgpgin 11\npgpgout 22\npswpin 3\npswpout 4\npgfault 100\npgmajfault 30\n";
const SWAPS: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/swap\\040file      file\t\t2048\t\t1024\t\t-2\n";

const PID_STAT: &str = "4242 (a (very) long n) S 1 4242 4242 0 -1 4194560 500 0 6 0 250 150 0 0 20 0 3 0 100000 8192000 100 \
    18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 50 0 0 0 0 0 0 0 0 0 0\n";

pub(super) const STATUS: &str = "\
Name:	weird
State:	S (sleeping)
Tgid:	4242
Pid:	4242
PPid:	1
TracerPid:	0
Uid:	1000	1000	1000	1000
Gid:	1000	1000	1000	1000
FDSize:	64
Groups:	1000
Threads:	3
SigQ:	7/31000
SigPnd:	0000000000000000
ShdPnd:	0000000000000000
SigBlk:	0000000000000000
SigIgn:	0000000000000000
SigCgt:	0000000000000000
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
voluntary_ctxt_switches:	10
nonvoluntary_ctxt_switches:	5
";

/// The files of a whole host. `1` is the first process, `4242` one that tells everything.
pub(super) fn files() -> Vec<(&'static str, String)> {
    let text = str::to_owned;
    vec![
        ("proc/stat", text(STAT)),
        ("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2000.5\nphysical id\t: 0\ncore id\t\t: 0\n\nprocessor\t: 1\ncpu MHz\t\t: 1000\nphysical id\t: 0\ncore id\t\t: 0\n\n".to_owned()),
        ("proc/meminfo", text(MEMINFO)),
        ("proc/loadavg", text("0.10 1.25 20.00 2/345 6789\n")),
        ("proc/diskstats", text(DISKSTATS)),
        ("proc/1/mountinfo", text(MOUNTINFO)),
        ("proc/1/net/dev", text(NET_DEV)),
        ("proc/1/net/tcp", text(TCP)),
        ("proc/sys/net/netfilter/nf_conntrack_count", text("12\n")),
        ("proc/sys/net/netfilter/nf_conntrack_max", text("34\n")),
        ("proc/vmstat", text(VMSTAT)),
        ("proc/swaps", text(SWAPS)),
        ("proc/uptime", text("12345.67 20000.00\n")),
        ("proc/self/cgroup", text("0::/pod/one\n")),
        ("proc/4242/stat", text(PID_STAT)),
        ("proc/4242/status", text(STATUS)),
        ("proc/4242/io", text("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n")),
        ("proc/4242/cmdline", text("/opt/a (very) long name\0--secret\0hunter2\0")),
        ("proc/4242/cgroup", text("0::/app\n")),
        ("proc/4242/task/4242/status", text(STATUS)),
        ("proc/4242/task/4243/status", text(STATUS)),
        ("etc/passwd", text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")),
        ("sys/fs/cgroup/pod/one/cgroup.events", text("populated 1\n")),
        ("sys/fs/cgroup/pod/one/cpu.stat", text("usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nthrottled_usec 250000\n")),
        ("sys/fs/cgroup/pod/one/cpu.max", text("150000 100000\n")),
        ("sys/fs/cgroup/pod/one/memory.current", text("1000000\n")),
        ("sys/fs/cgroup/pod/one/memory.max", text("4000000\n")),
        ("sys/fs/cgroup/pod/one/memory.stat", text("anon 5\ninactive_file 400000\n")),
    ]
}

/// Writes the files, and what is no file: directories to mount on, links, descriptors.
pub(super) fn host() -> TempDir {
    let root = TempDir::new().unwrap();
    for (path, content) in files() {
        write(root.path(), path, content.as_bytes());
    }
    for folder in ["my data", "proc/4242/fd", "proc/1/fd"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for descriptor in ["0", "1", "2"] {
        symlink("/dev/null", root.path().join("proc/4242/fd").join(descriptor)).unwrap();
    }
    symlink("/opt/a (very) long name", root.path().join("proc/4242/exe")).unwrap();
    root
}

pub(super) fn write(root: &Path, path: &str, content: &[u8]) {
    let path: PathBuf = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn tells_the_numbers_of_the_files() {
    let root = host();
    let mut rig = Rig::new(ALL, Host::whole(root.path()));
    let told = rig.collect();
    let is = |name: &str, attributes: &str, value: f64| assert_eq!(told.value(name, attributes), value, "{name}{{{attributes}}}");

    for (state, seconds) in [
        ("user", 10.0),
        ("nice", 2.0),
        ("system", 3.0),
        ("idle", 40.0),
        ("wait", 0.5),
        ("interrupt", 0.06),
        ("softirq", 0.07),
        ("steal", 0.08),
    ] {
        is("system.cpu.time", &format!("state={state}"), seconds);
    }
    is("system.cpu.logical.count", "", 2.0);
    is("system.cpu.physical.count", "", 1.0);
    is("system.cpu.frequency", "cpu=cpu0", 2_000.5e6);
    is("system.cpu.frequency", "cpu=cpu1", 1_000e6);
    assert_eq!(told.point("system.cpu.utilization", "state=user"), None, "there is nothing before the first look");

    let kib = 1024.0;
    for (state, value) in [
        ("used", 3000.0),
        ("free", 1000.0),
        ("buffered", 200.0),
        ("cached", 3400.0),
        ("slab_reclaimable", 400.0),
        ("slab_unreclaimable", 100.0),
    ] {
        is("system.memory.usage", &format!("state={state}"), value * kib);
        is("system.memory.utilization", &format!("state={state}"), value / 8000.0);
    }
    is("system.memory.limit", "", 8000.0 * kib);
    is("system.memory.page_size", "", 4096.0);
    is("system.linux.memory.available", "", 5000.0 * kib);
    is("system.linux.memory.dirty", "", 16.0 * kib);
    is("system.memory.linux.shared", "", 300.0 * kib);
    is("system.memory.linux.hugepages.limit", "", 4.0);
    is("system.memory.linux.hugepages.page_size", "", 2048.0 * kib);
    is("system.memory.linux.hugepages.usage", "system.memory.linux.hugepages.state=used", 1.0);
    is("system.memory.linux.hugepages.utilization", "system.memory.linux.hugepages.state=free", 0.75);
    is("system.memory.linux.hugepages.reserved", "", 1.0);
    is("system.memory.linux.hugepages.surplus", "", 0.0);

    is("system.cpu.load_average.1m", "", 0.1);
    is("system.cpu.load_average.5m", "", 1.25);
    is("system.cpu.load_average.15m", "", 20.0);

    is("system.disk.io", "device=nvme0n1,direction=read", 2000.0 * 512.0);
    is("system.disk.io", "device=nvme0n1,direction=write", 4000.0 * 512.0);
    is("system.disk.operations", "device=nvme0n1,direction=write", 200.0);
    is("system.disk.merged", "device=nvme0n1,direction=read", 10.0);
    is("system.disk.operation_time", "device=nvme0n1,direction=read", 0.03);
    is("system.disk.io_time", "device=nvme0n1", 0.07);
    is("system.disk.weighted_io_time", "device=nvme0n1", 0.09);
    is("system.disk.pending_operations", "device=nvme0n1", 2.0);
    assert_eq!(told.point("system.disk.io_time", "device=loop0"), None, "it was never used");

    // Both lie on the disk of the test; which they are is what counts.
    let free = "device=/dev/nvme0n1p1,mode=rw,mountpoint=/,type=ext4,state=free";
    assert!(told.value("system.filesystem.usage", free) > 0.0);
    let other = "device=/dev/nvme0n1p2,mode=ro,mountpoint=/my data,type=xfs,state=used";
    assert!(told.value("system.filesystem.inodes.usage", other) > 0.0);
    let points = told.points.keys().filter(|series| series.name == "system.filesystem.usage").count();
    assert_eq!(points, 6, "a bind, and what lies on no device, is not told of");

    is("system.network.io", "device=eth0,direction=receive", 5000.0);
    is("system.network.io", "device=eth0,direction=transmit", 7000.0);
    is("system.network.packets", "device=lo,direction=transmit", 10.0);
    is("system.network.errors", "device=eth0,direction=transmit", 3.0);
    is("system.network.dropped", "device=eth0,direction=receive", 2.0);
    is("system.network.connections", "protocol=tcp,state=ESTABLISHED", 1.0);
    is("system.network.connections", "protocol=tcp,state=SYN_RECV", 1.0);
    is("system.network.connections", "protocol=tcp,state=LISTEN", 1.0);
    is("system.network.connections", "protocol=tcp,state=CLOSE_WAIT", 0.0);
    is("system.network.conntrack.count", "", 12.0);
    is("system.network.conntrack.max", "", 34.0);

    is("system.paging.faults", "type=major", 30.0);
    is("system.paging.faults", "type=minor", 70.0);
    is("system.paging.operations", "direction=page_in,type=major", 3.0);
    is("system.paging.operations", "direction=page_out,type=minor", 22.0);
    is("system.paging.usage", "device=/swap file,state=used", 1024.0 * kib);
    is("system.paging.utilization", "device=/swap file,state=free", 0.5);

    is("system.processes.count", "status=running", 3.0);
    is("system.processes.count", "status=blocked", 1.0);
    is("system.processes.count", "status=sleeping", 1.0);
    is("system.processes.created", "", 4242.0);
    is("system.uptime", "", 12345.67);

    is("container.cpu.time", "cpu.mode=user", 3.0);
    is("container.cpu.throttled_time", "", 0.25);
    is("container.cpu.limit", "", 1.5);
    is("container.memory.usage", "", 1_000_000.0);
    is("container.memory.working_set", "", 600_000.0);
    is("container.memory.limit", "", 4_000_000.0);

    is("process.cpu.time", "state=user", 2.5);
    is("process.cpu.time", "state=system", 1.5);
    is("process.cpu.time", "state=wait", 0.5);
    is("process.memory.usage", "", 409_600.0);
    is("process.memory.virtual", "", 8_192_000.0);
    is("process.memory.utilization", "", 5.0);
    is("process.disk.io", "direction=read", 4096.0);
    is("process.disk.operations", "direction=write", 4.0);
    is("process.threads", "", 3.0);
    is("process.open_file_descriptors", "", 3.0);
    is("process.context_switches", "type=voluntary", 20.0);
    is("process.paging.faults", "type=major", 6.0);
    is("process.signals_pending", "", 7.0);
    is("process.uptime", "", (super::NOW - BOOT) as f64 / 1e9 - 1000.0);
    let process = told.points.keys().find(|series| series.name == "process.threads").unwrap();
    assert_eq!(
        process.resource,
        "process.pid=4242,process.parent_pid=1,process.executable.name=a (very) long name,\
         process.executable.path=/opt/a (very) long name,process.command=/opt/a (very) long name,\
         process.command_line=/opt/a (very) long name --secret hunter2,process.owner=alice,process.cgroup=0::/app"
    );
}

#[test]
fn counters_begin_at_the_boot_and_those_of_a_process_with_it() {
    let root = host();
    let mut rig = Rig::new(ALL, Host::whole(root.path()));
    rig.collect();
    // The clock was set: the kernel reckons another boot, and nothing began anew.
    write(root.path(), "proc/stat", STAT.replace("btime 1700000000", "btime 1700000003").as_bytes());
    for (series, point) in rig.collect().points {
        let is_gauge = ["utilization", "uptime", "load_average", "frequency", "page_size"]
            .iter()
            .any(|part| series.name.contains(part) && !series.name.contains("hugepages.page_size"));
        let begins = if is_gauge {
            0
        } else if series.name.starts_with("process.") {
            BOOT + 1_000_000_000_000
        } else {
            BOOT
        };
        assert_eq!((point.start, point.time), (begins, super::NOW), "{series:?}");
    }
}

#[test]
fn utilization_is_what_was_spent_between_two_looks() {
    let root = host();
    let mut rig = Rig::new(ALL, Host::whole(root.path()));
    rig.collect();
    write(root.path(), "proc/stat", STAT.replace("cpu  1000 200 300 4000", "cpu  1030 200 310 4060").as_bytes());
    let told = rig.collect();
    for (state, share) in [("user", 0.3), ("system", 0.1), ("idle", 0.6), ("nice", 0.0)] {
        assert_eq!(told.value("system.cpu.utilization", &format!("state={state}")), share);
    }
}

#[test]
fn includes_and_excludes() {
    let root = host();
    let yaml = "
scrapers:
  disk: {include: {match_type: strict, devices: [nvme0n1]}, exclude: {match_type: regexp, devices: ['^nvme\\d']}}
  network: {exclude: {match_type: strict, interfaces: [lo]}}
  filesystem: {include_fs_types: {match_type: strict, fs_types: [xfs, proc]}, include_virtual_filesystems: true}
  process: {include: {match_type: regexp, names: [other]}}
";
    let told = Rig::new(yaml, Host::whole(root.path())).collect();
    assert_eq!(told.names().iter().filter(|name| name.contains("disk") || name.starts_with("process.")).count(), 0);
    assert_eq!(told.point("system.network.io", "device=lo,direction=receive"), None);
    assert!(told.point("system.network.io", "device=eth0,direction=receive").is_some());
    let mounted: Vec<_> = told.points.keys().filter(|series| series.name == "system.filesystem.inodes.usage").collect();
    assert_eq!(mounted.len(), 4, "{mounted:?}");
    assert!(mounted.iter().all(|series| series.attributes.contains("type=xfs") || series.attributes.contains("type=proc")));
}

#[test]
fn cpu_by_cpu_where_it_is_asked_for() {
    let root = host();
    let yaml = "scrapers: {cpu: {metrics: {system.cpu.time: {attributes: [cpu, state]}}}, load: {cpu_average: true}}";
    let told = Rig::new(yaml, Host::whole(root.path())).collect();
    assert_eq!(told.value("system.cpu.time", "cpu=cpu1,state=idle"), 30.0);
    assert_eq!(told.points.keys().filter(|series| series.name == "system.cpu.time").count(), 16);
    assert_eq!(told.value("system.cpu.load_average.15m", ""), 10.0);
}

#[test]
fn what_no_limit_is_set_for_has_none() {
    let root = host();
    write(root.path(), "sys/fs/cgroup/pod/one/cpu.max", b"max 100000\n");
    write(root.path(), "sys/fs/cgroup/pod/one/memory.max", b"max\n");
    let told = Rig::new("scrapers: {cgroup: }", Host::whole(root.path())).collect();
    let names = ["container.cpu.throttled_time", "container.cpu.time", "container.memory.usage", "container.memory.working_set"];
    assert_eq!(told.names(), names);
    // The group of a container whose path is the host's; then no cgroup v2 at all.
    fs::rename(root.path().join("sys/fs/cgroup/pod/one"), root.path().join("sys/fs/inside")).unwrap();
    fs::remove_dir_all(root.path().join("sys/fs/cgroup")).unwrap();
    fs::rename(root.path().join("sys/fs/inside"), root.path().join("sys/fs/cgroup")).unwrap();
    assert_eq!(Rig::new("scrapers: {cgroup: }", Host::whole(root.path())).collect().names(), names);
    write(root.path(), "proc/self/cgroup", b"4:memory:/pod\n");
    let mut rig = Rig::new("scrapers: {cgroup: }", Host::whole(root.path()));
    assert!(rig.collect().points.is_empty());
    assert_eq!(rig.errored("cgroup"), 0.0);
}

#[test]
fn many_processes_are_told_of_in_several_requests() {
    let root = host();
    let padding = "x".repeat(60_000);
    for pid in 5000..5100 {
        write(root.path(), &format!("proc/{pid}/stat"), PID_STAT.replacen("4242", &pid.to_string(), 1).as_bytes());
        write(root.path(), &format!("proc/{pid}/cmdline"), padding.as_bytes());
    }
    let mut rig = Rig::new("scrapers: {process: {mute_process_all_errors: true}}", Host::whole(root.path()));
    let bodies = rig.rounds.collect();
    assert!(bodies.len() > 2 && bodies.iter().all(|body| body.payload.len() < 5 << 20), "{}", bodies.len());
    let told = super::Told::of(&bodies);
    assert_eq!(told.points.keys().filter(|series| series.name == "process.memory.usage").count(), 101);
}
