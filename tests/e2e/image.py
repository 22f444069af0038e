"""The image without Docker: what `deploy/image` puts into it, run as the Dockerfile says, its root read-only and nothing else in it, as a user without
rights, with one volume. It listens on all interfaces, takes the file of a Collector where one is mounted, and its health check tells how it is."""

import json
import os
import re
import shlex
import shutil
import subprocess

from harness import DEPLOY, HERE, WEIR, WORK, Process, Sink, demo, endpoints, get, main, port, promise, until

FILE = HERE.parent.parent / "Dockerfile"
IMAGE, VOLUME = WORK / "image", WORK / "volume"
IS_ROOT = os.geteuid() == 0
COLLECTOR = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "0.0.0.0:{grpc}"}}}}}}}}
exporters: {{otlp: {{endpoint: "127.0.0.1:{out}", tls: {{insecure: true}}}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp]}}}}
"""


class Image:
    """What the last stage of the Dockerfile says."""

    def __init__(self):
        text = re.sub(r"\\\n", " ", FILE.read_text())
        lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
        last = lines[max(at for at, line in enumerate(lines) if line[0] == "FROM") :]
        said = {word: rest for word, rest in last if word != "COPY"}
        self.base = said["FROM"]
        self.env = dict(pair.split("=", 1) for pair in shlex.split(said["ENV"]))
        self.entrypoint = json.loads(said["ENTRYPOINT"])
        self.health = json.loads(said["HEALTHCHECK"].split("CMD", 1)[1])
        self.user = said["USER"]
        self.volume = said["VOLUME"]
        self.ports = {int(number) for number in said["EXPOSE"].split()}

    def command(self, words, mounts=()):
        """What runs `words` in the image; `mounts` are (path here, path there)."""
        root = str(IMAGE / "root")
        steps = []
        for source, target in [(VOLUME, self.volume), ("/proc", "/proc"), *mounts]:
            # Docker makes these places; here they are made before the root is read-only.
            place = f"{root}{target}"
            steps.append(f"mkdir -p {place}" if os.path.isdir(source) else f"mkdir -p {os.path.dirname(place)} && touch {place}")
        steps.append(f"mount --bind {root} {root}")
        steps += [f"mount --rbind {source} {root}{target}" for source, target in [(VOLUME, self.volume), ("/proc", "/proc"), *mounts]]
        steps.append(f"mount -o remount,bind,ro {root}")
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.env.items())
        # Only root can become another user; others are root of a namespace of their own, which is nobody's.
        user = f"--userspec={self.user} --groups=" if IS_ROOT else ""
        tool = shutil.which
        steps.append(f"exec {tool('env')} -i {env} {tool('setpriv')} --no-new-privs {tool('chroot')} {user} {root} {shlex.join(words)}")
        return ["unshare", "--mount", *([] if IS_ROOT else ["--map-root-user"]), "--", "sh", "-ec", "\n".join(steps)]

    def ask(self, words, mounts=()):
        """Exit code, stdout, stderr of a command in the image."""
        done = subprocess.run(self.command(words, mounts), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def run(self, arguments, mounts=(), name="image"):
        return Process(name, self.command([*self.entrypoint, *arguments], mounts))


def listeners(image, mounts=()):
    """{port: host} of the configuration that the image would run."""
    code, shown, said = image.ask([*image.entrypoint, "print-config", "--format", "json"], mounts)
    if code:
        return {said: code}
    config = json.loads(shown)
    found = dict(reversed(address.rsplit(":", 1)) for path, address in endpoints(config) if path[0] != "exporters" or path[1] == "prometheus")
    for reader in config["service"].get("telemetry", {}).get("metrics", {}).get("readers", []):
        page = reader["pull"]["exporter"]["prometheus"]
        found[str(page["port"])] = page["host"]
    return {int(number): host for number, host in found.items()}


def check():
    subprocess.run([DEPLOY / "image", "layers", WEIR, IMAGE], check=True, timeout=60)
    VOLUME.mkdir(mode=0o700, exist_ok=True)
    image = Image()
    if IS_ROOT:
        uid, gid = map(int, image.user.split(":"))
        os.chown(VOLUME, uid, gid)
        # The folders above are the check's own.
        for folder in (WORK, IMAGE, *WORK.parents):
            if str(folder).startswith("/tmp/"):
                folder.chmod(folder.stat().st_mode | 0o011)
    files = sorted(str(path.relative_to(IMAGE / "root")) for path in (IMAGE / "root").rglob("*") if path.is_file())
    strange = [f for f in files if not re.fullmatch(r"weir|lib\S*/(ld-linux|lib)\S+\.so\S*|etc/(passwd|group|ssl/certs/ca-certificates\.crt)", f)]
    promise(f"the image holds weir, {len(files) - 4} libraries, certificates and nothing else", image.base == "scratch" and not strange and len(files) < 12, files)
    promise("it does not run as root", image.user.split(":")[0] not in ("", "0", "root"), image.user)

    code, version, said = image.ask([*image.entrypoint, "--version"])
    promise("weir runs in it", code == 0 and version.startswith("weir "), f"{code} {said}")
    found = listeners(image)
    promise("without a file it listens on all interfaces", set(found) == image.ports and set(found.values()) == {"0.0.0.0"}, found)

    # === without a file ===
    ports = {number: port() for number in image.ports}
    sets = []
    for key, number in (("receivers::otlp::protocols::grpc", 4317), ("receivers::otlp::protocols::http", 4318), ("exporters::prometheus", 8889), ("extensions::health_check", 13133)):
        sets += ["--set", f"{key}::endpoint=0.0.0.0:{ports[number]}"]
    reader = f"[{{pull: {{exporter: {{prometheus: {{host: 0.0.0.0, port: {ports[8888]}}}}}}}}}]"
    sets += ["--set", f"service::telemetry::metrics::readers={reader}"]
    code, _, said = image.ask(image.health)
    promise("the health check says that nothing runs", code == 1, f"{code} {said}")
    process = image.run(sets)
    for number in ports.values():
        process.listens(number)
    healthy = until(lambda: image.ask(image.health)[0] == 0, 20, 0.3)
    promise("the health check says that it is well", healthy, image.ask(image.health))
    done, counts = demo("--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "20", "--duration", "2s", "--seed", "7")
    promise("it takes data", done.returncode == 0 and counts[0] > 0, done.stdout[-800:])
    page = lambda: get(f"http://127.0.0.1:{ports[8889]}/metrics")[2]
    promise("it counts, and reads the machine", until(lambda: "traces_span_metrics_calls_total{" in page() and "system_cpu_time_seconds_total{" in page(), 20, 0.3), page()[:500])
    inside = sorted(path.name for path in VOLUME.iterdir())
    promise("its journal lies on the volume", "admin.sock" in inside and len(inside) > 2, inside)
    log = process.text()
    promise("nothing in it is missed", " WARN " not in log and "warning" not in log and "ERROR" not in log, log[-1500:])
    code, told, said = image.ask([*image.entrypoint, "drain", "--timeout", "20s"])
    promise("it can be drained", code == 0 and "drained" in told, f"{code} {told} {said}")
    promise("drained it is well and not ready", image.ask(image.health)[0] == 0 and image.ask([*image.health, "--ready"])[0] == 1)
    promise("it ends in order", process.stop() == 0, process.text()[-1500:])

    # === in the Collector's place ===
    sink, grpc = Sink(), port()
    file = WORK / "collector.yaml"
    file.write_text(COLLECTOR.format(grpc=grpc, out=sink.port))
    for there in ("/etc/otelcol/config.yaml", "/etc/otelcol-contrib/config.yaml", "/etc/weir/config.yaml"):
        found = listeners(image, [(file, there)])
        promise(f"a file mounted at {there} is run", set(found) == {grpc}, found)
        (IMAGE / "root" / there[1:]).unlink()
    process = image.run([], [(file, "/etc/otelcol-contrib/config.yaml")], name="collector").listens(grpc)
    done, counts = demo("--endpoint", f"http://127.0.0.1:{grpc}", "--rate", "20", "--duration", "2s", "--seed", "8")
    arrived = lambda: sum(1 for _ in sink.spans())
    promise("and what it takes arrives where that file says", counts[0] > 0 and until(lambda: arrived() == counts[0]), f"{arrived()} {counts}")
    promise("the health check needs nothing of the file", image.ask(image.health)[0] == 0, image.ask(image.health))
    promise("it ends in order there, too", process.stop() == 0, process.text()[-1500:])


main(check)
