"""The machines, by the names of the receiver `host_metrics` (v0, as in the embedded default): for CPU, memory, disks and network how much is used, what waits, what fails."""

from . import alerts
from .grafana import Dashboard, bars, column, datasource, link, override, query, query_variable, stat, steps, table, timeseries

UID = "weir-hosts"

HOST = 'host_name=~"$host"'
IDLE, NOT_IDLE = 'state=~"idle|wait"', 'state!="idle"'
USED, FREE, WRITABLE = 'state="used"', 'state="free"', 'mode="rw"'
RECEIVED, SENT, REAL = 'direction="receive"', 'direction="transmit"', 'device!="lo"'
MAJOR, TCP = 'type="major"', 'protocol="tcp"'
BUSY = steps("green", (0.7, "yellow"), (0.85, "orange"), (0.95, "red"))
LOAD = steps("green", (1, "yellow"), (2, "red"))


def series(name, *matchers):
    return f"{name}{{{','.join([HOST, *matchers])}}}"


def rate(name, *matchers):
    return f"rate({series(name, *matchers)}[$__rate_interval])"


def cpu_busy(by="host_name"):
    return f'1 - sum by ({by}) ({series("system_cpu_utilization_ratio", IDLE)})'


def memory_used(by="host_name"):
    return f"sum by ({by}) ({series('system_memory_utilization_ratio', USED)})"


def load_per_cpu(by="host_name"):
    return f"sum by ({by}) ({series('system_cpu_load_average_5m')}) / (sum by ({by}) ({series('system_cpu_logical_count')}) > 0)"


def fullest(by="host_name"):
    return f"max by ({by}) ({series('system_filesystem_utilization_ratio', WRITABLE)})"


def device_busy(by="host_name, device"):
    return f"max by ({by}) ({rate('system_disk_io_time_seconds_total')})"


def coloured(name, thresholds, unit="percentunit"):
    return override(
        name, ("unit", unit), ("min", 0), ("max", 1), ("thresholds", thresholds), ("custom.cellOptions", {"type": "gauge", "mode": "basic"})
    )


def dashboard():
    host = query_variable("host", "Host", "host.name.", "label_values(system_cpu_logical_count, host_name)", multi=True, all_value=".+")
    d = Dashboard(
        UID,
        "weir / Hosts",
        "The machines that weir runs on: for each resource how much is used, what waits for it, and what fails.",
        [datasource("prometheus"), host],
        tags=["host"],
        annotations=alerts.ANNOTATIONS[:1],
    )
    values = {
        "Value #A": "CPU",
        "Value #B": "Memory",
        "Value #C": "Load per CPU",
        "Value #D": "Fullest file system",
        "Value #E": "Busiest disk",
        "Value #F": "Received",
        "Value #G": "Sent",
        "Value #H": "Up for",
    }
    only = link("Only ${__data.fields.Host}", "/d/weir-hosts?var-host=${__data.fields.Host:percentencode}&${prometheus_datasource:queryparam}&${__url_time_range}")
    d.add(
        24,
        6,
        table(
            "Hosts",
            "Every machine that reports, as it is now. A click on a name shows only that one.",
            [
                column("A", cpu_busy()),
                column("B", memory_used()),
                column("C", load_per_cpu()),
                column("D", fullest()),
                column("E", device_busy("host_name")),
                column("F", f"sum by (host_name) ({rate('system_network_io_bytes_total', RECEIVED, REAL)})"),
                column("G", f"sum by (host_name) ({rate('system_network_io_bytes_total', SENT, REAL)})"),
                column("H", f"max by (host_name) ({series('system_uptime_seconds')})"),
            ],
            "none",
            rename={"host_name": "Host", **values},
            order=["host_name", *values],
            sort="CPU",
            overrides=[
                override("Host", ("links", [only]), ("custom.minWidth", 160)),
                *(coloured(name, BUSY) for name in ("CPU", "Memory", "Fullest file system", "Busiest disk")),
                override("Load per CPU", ("decimals", 2), ("thresholds", LOAD), ("custom.cellOptions", {"type": "color-text"})),
                override("Received", ("unit", "Bps")),
                override("Sent", ("unit", "Bps")),
                override("Up for", ("unit", "s"), ("decimals", 0)),
            ],
        ),
    )
    d.row("CPU")
    d.add(
        8,
        8,
        timeseries(
            "CPU by state",
            "The share of all CPUs of the chosen hosts. `wait` is idle while a disk works; `steal` is what the hypervisor gave to others.",
            query(
                f'avg by (state) (sum by (host_name, state) ({series("system_cpu_utilization_ratio", NOT_IDLE)}))',
                "{{state}}",
            ),
            "percentunit",
            stacked=True,
            defaults={"max": 1},
        ),
        timeseries("CPU by host", "How busy the CPUs of each host are: all but idle and wait.", query(cpu_busy(), "{{host_name}}"), "percentunit", defaults={"max": 1}),
        timeseries(
            "Load per CPU",
            "Tasks that run or wait, for each CPU, over five minutes. Above 1 some wait. The line is at 2, where WeirHostOverloaded fires.",
            query(load_per_cpu(), "{{host_name}}"),
            "none",
            steps("transparent", (2, "red")),
            lines=True,
            defaults={"decimals": 2},
        ),
    )
    d.row("Memory")
    d.add(
        8,
        8,
        timeseries(
            "Memory by state",
            "Bytes of all chosen hosts. `cached` and `buffered` are given back when somebody needs them; `used` is not.",
            query(f"sum by (state) ({series('system_memory_usage_bytes')})", "{{state}}"),
            "bytes",
            stacked=True,
        ),
        timeseries("Memory by host", "The share that is used. The line is at 95 %, where WeirHostMemory fires.", query(memory_used(), "{{host_name}}"), "percentunit", steps("transparent", (0.95, "red")), lines=True, defaults={"max": 1}),
        timeseries(
            "Swapping and major faults",
            "Pages that come from or go to disk, each second. Much of it: memory is too small.",
            [
                query(f"sum by (host_name) ({rate('system_paging_faults_total', MAJOR)})", "{{host_name}} major faults", ref="A"),
                query(f"sum by (host_name, direction) ({rate('system_paging_operations_total', MAJOR)})", "{{host_name}} {{direction}}", ref="B"),
            ],
            "ops",
        ),
    )
    d.row("Disks")
    d.add(
        8,
        8,
        timeseries("Busy", "The share of the time in which a device had something to do. Near 1 it is the bottleneck (but for devices that do many things at once).", query(device_busy(), "{{host_name}} {{device}}"), "percentunit", defaults={"max": 1}),
        timeseries("Read and written", "Bytes a second, by device.", query(f"sum by (host_name, device, direction) ({rate('system_disk_io_bytes_total')}) > 0", "{{host_name}} {{device}} {{direction}}"), "Bps", empty="nothing was read or written"),
        timeseries(
            "Time an operation takes",
            "The mean time of reads and writes, waiting included.",
            query(
                f"sum by (host_name, device, direction) ({rate('system_disk_operation_time_seconds_total')}) / (sum by (host_name, device, direction) ({rate('system_disk_operations_total')}) > 0)",
                "{{host_name}} {{device}} {{direction}}",
            ),
            "s",
            empty="no operations",
        ),
    )
    d.row("File systems")
    mount = "host_name, mountpoint, device"
    files = {"Value #A": "Used", "Value #B": "Inodes used", "Value #C": "Free", "Value #D": "Full in"}
    free = series("system_filesystem_usage_bytes", WRITABLE, FREE)
    d.add(
        24,
        6,
        table(
            "File systems",
            "Each file system that is written to: how full it is, and at the pace of the last six hours how long the rest lasts (up to a year).",
            [
                column("A", fullest(mount)),
                column("B", f'max by ({mount}) ({series("system_filesystem_inodes_usage", WRITABLE, USED)}) / (sum by ({mount}) ({series("system_filesystem_inodes_usage", WRITABLE)}) > 0)'),
                column("C", f"max by ({mount}) ({free})"),
                column("D", f"max by ({mount}) ({free} / -(deriv({free}[6h]) < 0)) < 31536000"),
            ],
            "none",
            rename={"host_name": "Host", "mountpoint": "Mounted at", "device": "Device", **files},
            order=["host_name", "mountpoint", "device", *files],
            sort="Used",
            overrides=[coloured("Used", BUSY), coloured("Inodes used", BUSY), override("Free", ("unit", "bytes")), override("Full in", ("unit", "s"), ("decimals", 0), ("thresholds", steps("red", (86400, "orange"), (604800, "text"))), ("custom.cellOptions", {"type": "color-text"}))],
        ),
    )
    d.row("Network")
    d.add(
        8,
        8,
        timeseries(
            "Received and sent",
            "Bytes a second, by host; received below the axis.",
            [
                query(f"-sum by (host_name) ({rate('system_network_io_bytes_total', RECEIVED, REAL)})", "{{host_name}} received", ref="A"),
                query(f"sum by (host_name) ({rate('system_network_io_bytes_total', SENT, REAL)})", "{{host_name}} sent", ref="B"),
            ],
            "Bps",
            low=None,
        ),
        timeseries(
            "Errors and drops",
            "Packets a second that were wrong or had no room, by interface.",
            [
                query(f"sum by (host_name, device) ({rate('system_network_errors_total')}) > 0", "{{host_name}} {{device}} errors", ref="A"),
                query(f"sum by (host_name, device) ({rate('system_network_dropped_total')}) > 0", "{{host_name}} {{device}} drops", ref="B"),
            ],
            "pps",
            empty="no packet was wrong or dropped",
        ),
        timeseries("TCP connections", "By state. Many in CLOSE_WAIT: a process does not close; many in TIME_WAIT: connections are short.", query(f"sum by (state) ({series('system_network_connections', TCP)}) > 0", "{{state}}"), "none"),
    )
    d.row("Processes, and the container that weir runs in")
    d.add(
        8,
        8,
        timeseries("Processes by state", "Many `blocked`: they wait for a disk.", query(f"sum by (status) ({series('system_processes_count')}) > 0", "{{status}}"), "none"),
        timeseries("CPU of the container", "CPUs that the container uses, and its limit. Time throttled: it wanted more.", [
            query(f"sum by (host_name) ({rate('container_cpu_time_seconds_total')})", "{{host_name}} used", ref="A"),
            query(f"sum by (host_name) ({series('container_cpu_limit')})", "{{host_name}} limit", ref="B"),
            query(f"sum by (host_name) ({rate('container_cpu_throttled_time_seconds_total')})", "{{host_name}} throttled", ref="C"),
        ], "none", empty="not in a container", defaults={"decimals": 2}),
        timeseries("Memory of the container", "What the container uses (working set: without what can be given back) and its limit.", [
            query(f"sum by (host_name) ({series('container_memory_working_set_bytes')})", "{{host_name}} working set", ref="A"),
            query(f"sum by (host_name) ({series('container_memory_usage_bytes')})", "{{host_name}} used", ref="B"),
            query(f"sum by (host_name) ({series('container_memory_limit_bytes')})", "{{host_name}} limit", ref="C"),
        ], "bytes", empty="not in a container"),
    )
    return d.model()
