"""The dashboards against Grafana's own types: the TypeScript compiler holds them against `@grafana/schema`, word for word."""

import copy
import json
import subprocess

from harness import CACHE, HERE, WORK, main, promise

FILES = sorted((HERE.parent.parent / "dashboards/grafana").glob("*.json"))
NODE = CACHE / "node/node_modules"
RAW = "@grafana/schema/dist/esm/raw"

# What a kind of panel is called among the types, and whether it has settings of its own for fields.
KINDS = {
    "bargauge": ("BarGauge", False),
    "heatmap": ("Heatmap", True),
    "logs": ("Logs", False),
    "stat": ("Stat", False),
    "table": ("Table", True),
    "timeseries": ("TimeSeries", True),
}

# An enumeration is its text in JSON. And the data source Prometheus reads keys of an annotation that are not among the types.
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Marks = { expr?: string; step?: string; titleFormat?: string; textFormat?: string; useValueForTime?: boolean };
type Board = Plain<Omit<Dashboard, "annotations">> & { annotations: { list: (Plain<AnnotationQuery> & Marks)[] } };
"""


def panels(model):
    for panel in model["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def program(models):
    """TypeScript that is right if, and only if, every dashboard is of Grafana's types. Literals, so that a key that no type has is an error."""
    lines = [f'import type {{ AnnotationQuery, Dashboard }} from "{RAW}/dashboard/x/Dashboard_types.gen";']
    for kind, (name, _) in KINDS.items():
        lines.append(f'import type * as {kind} from "{RAW}/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen";')
    lines.append(PLAIN)
    for number, model in enumerate(models):
        lines.append(f"export const d{number}: Board = {json.dumps(model)};")
        for panel in panels(model):
            kind, place = panel["type"], f"{number}_{panel['id']}"
            lines.append(f"export const o{place}: Plain<{kind}.Options> = {json.dumps(panel['options'])};")
            custom = panel["fieldConfig"]["defaults"].get("custom")
            if KINDS[kind][1]:
                lines.append(f"export const c{place}: Plain<{kind}.FieldConfig> = {json.dumps(custom)};")
    return "\n".join(lines)


def compiled(models, name):
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    (folder / "dashboards.ts").write_text(program(models))
    link = folder / "node_modules"
    if not link.exists():
        link.symlink_to(NODE)
    options = {"strict": True, "noEmit": True, "module": "esnext", "moduleResolution": "bundler", "target": "es2022", "skipLibCheck": True, "types": []}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["dashboards.ts"]}))
    done = subprocess.run(["node", NODE / "typescript/bin/tsc", "-p", folder], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def damage(model, what):
    panel = next(panel for panel in panels(model) if panel["type"] == "stat")
    if what == "a key that no type has":
        panel["options"]["colourMode"] = "value"
    elif what == "a value that is none of the choices":
        panel["options"]["colorMode"] = "colourful"
    elif what == "a number where a text belongs":
        panel["fieldConfig"]["defaults"]["unit"] = 7
    else:
        model["templating"]["list"][0]["type"] = "datasauce"


def check():
    models = [json.loads(path.read_text()) for path in FILES]
    count = sum(1 for model in models for _ in panels(model))
    code, said = compiled(models, "right")
    promise(f"{len(models)} dashboards and {count} panels are of Grafana's types", models and code == 0, said[:3000])
    for number, what in enumerate(("a key that no type has", "a value that is none of the choices", "a number where a text belongs", "a kind of variable that there is not")):
        damaged = [copy.deepcopy(next(model for model in models if model["uid"] == "weir-services"))]
        damage(damaged[0], what)
        code, said = compiled(damaged, f"wrong-{number}")
        promise(f"the compiler finds {what}", code != 0 and "error TS" in said, said)


main(check)
