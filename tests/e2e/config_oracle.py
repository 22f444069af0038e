"""Asks the Collector and weir whether they accept the configurations of tests/suite/configs.

usage: config_oracle.py --reference OTELCOL --candidate WEIR
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CASES = Path(__file__).resolve().parent.parent / "suite/configs"
BASE = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}
exporters: {debug: , nop: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
"""
VARIABLES = {
    "A": "0123", "B": "true", "C": "[1, 2]", "D": "{x: 1}", "E": "", "N": "a: b", "T": "[a, b]", "U": "a,b", "R": "yes",
    "W": '"5"', "X5": "5", "FIVE": "5s",
}


def cases():
    for path in sorted(CASES.glob("*.cases")):
        for part in re.split(r"^=== ", path.read_text(), flags=re.M)[1:]:
            head, _, body = part.partition("\n")
            name, _, verdict = head.partition(" | ")
            yield f"{path.stem}: {name}", verdict, body


def accepts(binary, folder, body, environment):
    """Whether `validate` ends well, and what it says."""
    configs = []
    based = body.startswith("<base>\n")
    if based:
        base = folder / "base.yaml"
        base.write_text(BASE)
        configs += ["--config", str(base)]
        body = body.removeprefix("<base>\n")
    case = folder / "case.yaml"
    case.write_text(body)
    configs += ["--config", str(case)]
    done = subprocess.run([binary, "validate", *configs], capture_output=True, text=True, timeout=60, env=environment, stdin=subprocess.DEVNULL)
    return done.returncode == 0, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--candidate", required=True)
    arguments = parser.parse_args()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | VARIABLES

    def judge(case):
        name, verdict, body = case
        with tempfile.TemporaryDirectory() as folder:
            theirs, their_words = accepts(arguments.reference, Path(folder), body, environment)
            ours, our_words = accepts(arguments.candidate, Path(folder), body, environment)
        wanted = {"accept": (True, True), "refuse": (False, False)}.get(verdict)
        if verdict.startswith("weir accepts, "):
            wanted = (True, False)
        elif verdict.startswith("weir refuses, "):
            wanted = (False, True)
        if wanted is None:
            return name, f"no such verdict: {verdict}"
        if "panicked" in our_words:
            return name, our_words
        words = {True: "accepts", False: "refuses"}
        wrong = []
        if ours != wanted[0]:
            wrong.append(f"weir {words[ours]} it: {our_words.strip()[:600]}")
        if theirs != wanted[1]:
            wrong.append(f"the Collector {words[theirs]} it: {their_words.strip()[:600]}")
        return name, "; ".join(wrong)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(judge, cases()))
    wrong = [(name, why) for name, why in results if why]
    for name, why in wrong:
        print(f"FAIL  {name}: {why}", flush=True)
    if not wrong:
        print(f"ok    {len(results)} configurations are judged as the Collector judges them, or otherwise on purpose", flush=True)
    sys.exit(1 if wrong or not results else 0)


main()
