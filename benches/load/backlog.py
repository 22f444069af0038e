#!/usr/bin/env python3
"""What a dead backend costs, and what its return costs the rest: RSS while a backlog grows on disk, how fast it is delivered afterwards beside
the speed of fresh traffic, and p99 of the export at 20,000 spans/s before and meanwhile.

    backlog.py [--weir target/release/weir] [--gib 4] [--data-dir DIR]

weir runs on core 1, generator and backend on core 0. Loopback only; ports 4317 and 4319. The last line has the figures."""
import argparse, json, os, pathlib, shutil, socket, statistics, subprocess, tempfile, threading, time

here = pathlib.Path(__file__).resolve().parent
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--weir", default=here.parent.parent / "target/release/weir")
arguments.add_argument("--gib", type=float, default=4)
arguments.add_argument("--data-dir", help="on the disk that is meant; a temporary one by default")
asked = arguments.parse_args()
tool = os.environ.get("OTLPLOAD", here / "target/release/otlpload")
work = pathlib.Path(tempfile.mkdtemp(prefix="backlog-", dir=asked.data_dir))
config = work / "weir.yaml"
config.write_text("""
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:4317"}}}}
exporters:
  otlp_grpc:
    endpoint: http://127.0.0.1:4319
    compression: none
    retry_on_failure: {initial_interval: 200ms, max_interval: 500ms, max_elapsed_time: 0}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}
""")
running = []


def start(core, *command):
    process = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdout=subprocess.DEVNULL, stderr=open(work / "log", "ab"))
    running.append(process)
    return process


def stop(process):
    process.terminate()
    process.wait()


def up(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}: see {work}/log")


def sink():
    stats = work / "sink"
    stats.unlink(missing_ok=True)
    process = start(0, tool, "sink", "--listen", "127.0.0.1:4319", "--max-frame-kib", "16", "--stats", stats)
    up(4319)
    return process


def arrived():
    try:
        return int((work / "sink").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def load(seconds, *more, wait=True):
    out = work / "load.json"
    out.unlink(missing_ok=True)
    process = start(0, tool, "load", "--warmup", "0", "--duration", str(seconds), "--settle-ms", "0", "--json", out, *more)
    if not wait:
        return process
    if process.wait():
        raise SystemExit(f"the generator failed: see {work}/log")
    return json.loads(out.read_text().splitlines()[-1])


def until_out(spans, out):
    while arrived() < spans:
        time.sleep(0.05)
    out.append(time.monotonic())


def status(process, key):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def size(path):
    return sum(entry.stat().st_blocks * 512 for entry in path.rglob("*") if entry.is_file())


STEADY = ("--rate", "20000", "--batch", "100", "--connections", "8", "--in-flight", "1")
try:
    backend = sink()
    weir = start(1, asked.weir, "run", "--data-dir", work / "data", "--journal-max-size", f"{int(asked.gib * 2 + 2)}GiB", "--config", config)
    up(4317)
    fresh = load(5)
    calm = load(5, *STEADY)
    stop(backend)
    waiting = 0
    pathlib.Path(f"/proc/{weir.pid}/clear_refs").write_text("5")
    while size(work / "data/topics") < asked.gib * 2**30:
        waiting += load(5)["items"]
        print(f"{size(work / 'data/topics') / 2**30:.1f} GiB on disk, RSS {status(weir, 'VmRSS'):.0f} MiB, peak {status(weir, 'VmHWM'):.0f}", flush=True)
    peak = status(weir, "VmHWM")
    backend = sink()
    # Records leave in order, so that what waited is out when so many have come.
    begun, delays, out = time.monotonic(), [], []
    threading.Thread(target=until_out, args=(waiting, out), daemon=True).start()
    while not out:
        if time.monotonic() - begun > 300:
            raise SystemExit(f"{arrived()} of {waiting} spans after five minutes")
        delay = load(2, *STEADY)["p99_ms"]
        if not out or not delays:
            delays.append(delay)
    drained = waiting / (out[0] - begun)
    draining = status(weir, "VmHWM")
    print(
        f"RESULT {asked.gib} GiB of backlog ({waiting:,} spans): RSS {peak:.0f} MiB at most while it grew, {draining:.0f} while it was drained; "
        f"drained {drained:,.0f} spans/s beside 20,000 fresh ones, fresh ones alone {fresh['items_per_s']:,.0f}: {drained / fresh['items_per_s']:.0%}; "
        f"p99 at 20,000 spans/s {calm['p99_ms']:.1f} ms before, {statistics.median(delays):.1f} ms beside (the median of {len(delays)} times 2 s)"
    )
finally:
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(work)
