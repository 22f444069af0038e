"""What people deploy weir with, as far as can be told without Docker and without a cluster: the compose file and the manifests by the schemas of their
specifications, the unit by systemd's own tools and by the system calls that weir really makes, and every configuration in them by weir."""

import json
import os
import re
import subprocess
import sys
import zipfile

from harness import CACHE, DEPLOY, HERE, WEIR, WORK, demo, get, main, moved, promise, until

sys.path.insert(0, str(CACHE / "schemas"))
import jsonschema
import kubernetes_validate
import yaml

ROOT = HERE.parent.parent
# The oldest that is still supported, and the newest that the schemas know.
KUBERNETES = ("1.33", "1.37")
COMPOSE_GO = CACHE / "compose-go.zip"


def call(*words, env=None):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def validates(text, env=None):
    file = WORK / "configuration.yaml"
    file.write_text(text)
    return call(WEIR, "validate", file, env=env)


# === compose ===


def env_file(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))


def compose():
    file = ROOT / "docker-compose.yml"
    with zipfile.ZipFile(COMPOSE_GO) as module:
        name = next(name for name in module.namelist() if name.endswith("/schema/compose-spec.json"))
        schema = json.loads(module.read(name))
    whole = yaml.safe_load(file.read_text())
    found = [f"{list(error.path)}: {error.message}" for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(whole)]
    promise("docker-compose.yml is as the specification's schema wants it", not found, found)
    for env, wanted in ((ROOT / ".env", "elasticsearch"), (DEPLOY / "opensearch.env", "opensearch")):
        # The environment wins over a file, so the file's words are given by it.
        code, said = call("docker-compose", "--env-file", env, "config", env=env_file(env))
        promise(f"docker-compose takes it with {env.name}", code == 0, said[-1500:])
        said = yaml.safe_load(said) if code == 0 else {"services": {}}
        reached = said["services"].get("weir", {}).get("environment", {}).get("ELASTICSEARCH")
        promise(f"with {env.name} weir sends to {wanted}", reached == f"http://{wanted}:9200" and wanted == env_file(env)["COMPOSE_PROFILES"], reached)
    services = whole["services"]
    loose = {name: service["image"] for name, service in services.items() if not re.search(r":(v?\d+\.\d+\.\d+|local)$", service["image"])}
    promise("every image has a version", not loose, loose)
    open_ports = [port for service in services.values() for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    promise("every port is on loopback", not open_ports, open_ports)
    volumes = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    missing = [path for path in volumes if path.startswith("./") and not (ROOT / path).exists()]
    promise("everything that is mounted is in the repository", not missing, missing)
    unnamed = [name for name in volumes if name[0] not in "./" and name not in whole["volumes"]]
    promise("every volume is declared", not unnamed, unnamed)
    env = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in services["weir"]["environment"].items()}
    code, said = validates((DEPLOY / "weir.yaml").read_text(), {**env, "HOST_ROOT": "/"})
    promise("weir takes its file as compose gives it", code == 0 and "0 warnings" in said, said[-1500:])
    known = {f"{name}:{port}" for name, ports in {"weir": (8888, 8889), "jaeger": (4317,), "prometheus": (9090,), "alertmanager": (9093,), "elasticsearch": (9200,)}.items() for port in ports}
    texts = "".join((DEPLOY / name).read_text() for name in ("prometheus.yml",)) + str(env) + str(services["jaeger"]["environment"])
    strangers = set(re.findall(r"\b([a-z]+:\d{4,5})\b", texts)) - known
    promise("the services know each other by names that there are", not strangers and {address.split(":")[0] for address in known} <= set(services), strangers)


# === Kubernetes ===


def kubernetes():
    objects = [(file.name, one) for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    for version in KUBERNETES:
        wrong = []
        for name, one in objects:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{name} {one['kind']} {error.path}: {error.message}")
        promise(f"the {len(objects)} objects are as Kubernetes {version} wants them", objects and not wrong, wrong)
    maps = {one["metadata"]["name"]: one["data"]["config.yaml"] for _, one in objects if one["kind"] == "ConfigMap"}
    for name, text in maps.items():
        code, said = validates(text.replace("root_path: /hostfs", "root_path: /"))
        promise(f"weir takes the file of the ConfigMap {name}", code == 0 and "0 warnings" in said, said[-1500:])
    for _, one in objects:
        if one["kind"] not in ("StatefulSet", "DaemonSet"):
            continue
        kind, pod = one["kind"], one["spec"]["template"]["spec"]
        container = pod["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        named = [service_port["targetPort"] for _, service in objects if service["kind"] == "Service" and kind == "StatefulSet" for service_port in service["spec"]["ports"]]
        probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        promise(f"{kind}: Services and probes name ports that it has", {*named, *(probe["port"] for probe in probes.values())} <= set(ports), ports)
        promise(f"{kind}: alive and ready are two questions", (probes["livenessProbe"]["path"], probes["readinessProbe"]["path"]) == ("/", "/ready"), probes)
        config = maps[next(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)]
        shut = [number for number in ports.values() if not re.search(rf"\b{number}\b", config)]
        promise(f"{kind}: weir listens on every port that is named", not shut, shut)
        drain = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if drain:
            seconds = sum(int(number) * {"m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([ms])", drain[-1]))
            promise(f"{kind}: the drain is a command that there is, and ends in the time that it has", call(WEIR, *drain[1:3], drain[3], "--help")[0] == 0 and seconds + 10 < pod["terminationGracePeriodSeconds"], drain)
        safe = container["securityContext"]
        promise(f"{kind}: a read-only root and no rights", safe["readOnlyRootFilesystem"] and safe["capabilities"] == {"drop": ["ALL"]} and not safe["allowPrivilegeEscalation"], safe)


# === systemd ===


def allowed(filters):
    """The system calls that a unit's filters leave."""
    groups = {}
    code, said = call("systemd-analyze", "syscall-filter", "--no-pager")
    for line in said.splitlines():
        word = line.strip()
        if line.startswith("@"):
            groups[line.split()[0]] = group = []
        elif word and not word.startswith("#") and groups:
            group.append(word.split()[0])

    def calls(name):
        return {call for part in groups.get(name, []) for call in (calls(part) if part.startswith("@") else {part})}

    left = set()
    for line in filters:
        names = line.lstrip("~").split()
        some = set().union(*(calls(name) if name.startswith("@") else {name} for name in names))
        left = left - some if line.startswith("~") else left | some
    return left


def systemd():
    unit = (DEPLOY / "systemd/weir.service").read_text()
    file = WORK / "weir.service"
    file.write_text(unit.replace("/usr/bin/weir", WEIR))
    code, said = call("systemd-analyze", "verify", file)
    promise("systemd takes the unit", code == 0 and not said.strip(), said)
    code, said = call("systemd-analyze", "security", "--offline=true", "--threshold=20", file)
    promise("systemd finds its exposure below 2", code == 0, said[-300:])
    left = allowed(re.findall(r"^SystemCallFilter=(.*)$", unit, re.M))
    # What weir asks of the system from its start to its end, with data, disk and host metrics.
    sets, ports = moved()
    trace = WORK / "calls"
    command = ["strace", "-f", "-qq", "-c", "-o", trace, WEIR, "run", *sets]
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, "WEIR_DATA_DIR": str(WORK / "traced")}, stderr=subprocess.DEVNULL)
    until(lambda: get(f"http://127.0.0.1:{ports[13133]}/")[0] == 200, 60, 0.2)
    done, _ = demo("--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "5", "--duration", "2s", "--seed", "7")
    get(f"http://127.0.0.1:{ports[8889]}/metrics")
    # The tracer's child is the one that ends in order.
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    for child in children:
        os.kill(int(child), 15)
    process.wait(60)
    made = {line.split()[-1] for line in trace.read_text().splitlines()[2:] if line.strip() and not line.startswith("-")} - {"total"}
    refused = sorted(made - left)
    promise(f"the {len(made)} system calls that weir makes are allowed by the unit", done.returncode == 0 and len(made) > 30 and not refused, refused)


def check():
    compose()
    kubernetes()
    systemd()


main(check)
