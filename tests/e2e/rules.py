"""The rules of `dashboards/rules`: promtool finds nothing wrong in them and their tests hold, every alert has a case that fires and one that
does not, and a real Prometheus that scrapes weir under `weir demo` evaluates them from names that are on weir's pages."""

import json
import re
import subprocess
import urllib.parse

from harness import HERE, OPEN_METRICS, WEIR, WORK, Process, demo, get, main, moved, port, promise, samples, until, weir

RULES = HERE.parent.parent / "dashboards/rules"
FILES = sorted(RULES.glob("*.yaml"))
TESTS = sorted((RULES / "tests").glob("*.yaml"))

# Names that no page of weir has under the demo, and why.
NOT_ON_PAGES = {"up": "Prometheus makes it, for every target"}

WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def names(query):
    """The names of metrics that an expression reads."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\w|:)(?!\s*\()", bare)
    return {name for name in found if name not in WORDS}


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def cases():
    """{alert: (labels of its firing cases, number of its silent cases)} of all test files."""
    found = {}
    for file in TESTS:
        for part in file.read_text().split("- expr: ")[1:]:
            alert = re.match(r"'ALERTS\{alertname=\"(\w+)\",alertstate=\"firing\"", part)
            if not alert:
                continue
            firing, silent = found.setdefault(alert.group(1), ([], []))
            expected = re.findall(r"labels: 'ALERTS\{(.*)\}', value: 1\}", part)
            firing += [set(re.findall(r'(\w+)="', labels)) for labels in expected]
            silent += [1] if "exp_samples: []" in part else []
    return found


def check():
    promise("there are rules, and a file of tests for each", FILES and [f.name for f in FILES] == [t.name for t in TESTS], f"{FILES} {TESTS}")
    promise("promtool takes the rules", *promtool("check", "rules", *FILES))
    for test in TESTS:
        promise(f"the tests of {test.name} hold", *promtool("test", "rules", test))

    # === a weir under load, and a Prometheus with the job that weir prints ===
    sets, ports = moved()
    process = weir(["run", *sets])
    for number in (4317, 8888, 8889):
        process.listens(ports[number])
    printed = subprocess.run([WEIR, "scrape-config", *sets], capture_output=True, text=True, timeout=20).stdout
    # The rules as they are, but that nobody waits two minutes for those that are evaluated rarely.
    loaded = WORK / "rules"
    loaded.mkdir(exist_ok=True)
    for rule_file in FILES:
        (loaded / rule_file.name).write_text(rule_file.read_text().replace("interval: 2m", "interval: 1s"))
    file = WORK / "prometheus.yml"
    job = printed.replace("scrape_interval: 15s", "scrape_interval: 1s\n    scrape_timeout: 1s")
    file.write_text(f"global: {{evaluation_interval: 1s}}\nrule_files: [{json.dumps(str(loaded / '*.yaml'))}]\n{job}")
    promise("promtool takes the printed jobs with the rules", *promtool("check", "config", file))
    number = port()
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={WORK / 'data'}", f"--web.listen-address=127.0.0.1:{number}"]
    prometheus = Process("prometheus", ["prometheus", *arguments, "--log.level=warn"]).listens(number)

    def api(path):
        status, _, text = get(f"http://127.0.0.1:{number}/api/v1/{path}")
        return json.loads(text)["data"] if status == 200 else {}

    # Two of them, so that counters move between scrapes.
    for seed in ("7", "8"):
        done, _ = demo("--endpoint", f"http://127.0.0.1:{ports[4317]}", "--rate", "50", "--duration", "4s", "--seed", seed, "--error-pct", "20")
        promise("the demo is accepted", done.returncode == 0, done.stdout[-800:] + done.stderr[-800:])

    def rules():
        return [rule for group in api("rules").get("groups", []) for rule in group["rules"]]

    found = until(lambda: (got := rules()) and all(rule["health"] != "unknown" for rule in got) and got, 60, 0.5) or rules()
    alerts = {rule["name"]: rule for rule in found if rule["type"] == "alerting"}
    records = {rule["name"]: rule for rule in found if rule["type"] == "recording"}
    promise("Prometheus evaluates all of them", found and all(rule["health"] == "ok" for rule in found), [(r["name"], r["health"], r.get("lastError")) for r in found if r["health"] != "ok"])

    used = {name: rule["name"] for rule in found for name in names(rule["query"])}
    on_pages = set()

    def strange():
        # Some names come with the second collection.
        for at in (8888, 8889):
            on_pages.update(name for name, _, _, _ in samples(get(f"http://127.0.0.1:{ports[at]}/metrics", OPEN_METRICS)[2]))
        return {name: by for name, by in used.items() if name not in on_pages and name not in records and name not in NOT_ON_PAGES}

    until(lambda: not strange(), 60, 0.5)
    promise(f"all {len(used)} names that rules read are on weir's pages or recorded", used and not strange(), strange())
    stale = [name for name in NOT_ON_PAGES if name in on_pages or name not in used]
    promise("the list of names that are not there is true", not stale, stale)

    def empty():
        query = " or ".join(f'label_replace(count({name}), "rule", "{name}", "", "")' for name in records)
        status, _, text = get(f"http://127.0.0.1:{number}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        have = {row["metric"]["rule"] for row in json.loads(text)["data"]["result"]} if status == 200 else set()
        return sorted(set(records) - have)

    until(lambda: not empty(), 60, 0.5)
    promise(f"all {len(records)} records have values under the demo", records and not empty(), empty())

    # === what a person is told ===
    tested = cases()
    untested = [name for name in alerts if not (tested.get(name, ([], []))[0] and tested[name][1])]
    promise("every alert has a case that fires and one that does not", alerts and not untested, untested)
    poor = [
        name
        for name, rule in alerts.items()
        if rule["labels"].get("severity") not in ("critical", "warning") or not rule["annotations"].get("summary") or "weir " not in rule["annotations"].get("description", "")
    ]
    promise("every alert has a severity, a summary and a description with a command", not poor, poor)
    blank = {
        name: missing
        for name, rule in alerts.items()
        for labels in tested.get(name, ([], []))[0]
        if (missing := set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values()))) - labels)
    }
    promise("every label that a text names is on the alert", not blank, blank)
    # `weir` is told to people only in commands that there are.
    commands = {
        command
        for rule in alerts.values()
        for command in re.findall(r"\bweir ((?:journal|elasticsearch) \w+|tap|plan|validate|scrape-config|demo)\b", rule["annotations"]["description"])
    }
    flags = {
        (command, flag)
        for rule in alerts.values()
        for command, rest in re.findall(r"\bweir ((?:journal )?\w[\w-]*)((?: (?:--?[a-z][a-z-]*|[A-Z]+|[^\s;,.:()]+))*)", rule["annotations"]["description"])
        if command in commands
        for flag in re.findall(r"(?<= )--[a-z][a-z-]*", rest)
    }
    helps = {command: subprocess.run([WEIR, *command.split(), "--help"], capture_output=True, text=True, timeout=20) for command in commands}
    wrong = [command for command, shown in helps.items() if shown.returncode] + [(c, f) for c, f in flags if f not in helps[c].stdout]
    promise(f"the {len(commands)} commands of the texts exist, with their {len(flags)} flags", commands and flags and not wrong, wrong)
    promise("Prometheus says nothing odd", "level=error" not in prometheus.text(), prometheus.text()[-1500:])


main(check)
