#!/usr/bin/env python3
"""Holds the dependencies against deny.toml: licences, banned crates, sources. Needs cargo and Python 3.11."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
rules = tomllib.loads((root / "deny.toml").read_text())
allowed = set(rules["licenses"]["allow"])
banned = {entry["name"]: entry["reason"] for entry in rules["bans"]["deny"]}
registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}


def holds(expression):
    """Whether an SPDX expression can be met with allowed licences alone."""
    # Older manifests write MIT/Apache-2.0 for a choice.
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        met = both()
        while words and words[0] == "OR":
            words.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while words and words[0] == "AND":
            words.pop(0)
            met = one() and met
        return met

    def one():
        word = words.pop(0)
        if word == "(":
            met = either()
            words.pop(0)
            return met
        if len(words) > 1 and words[0] == "WITH":
            words.pop(0)
            word = f"{word} WITH {words.pop(0)}"
        return word in allowed

    return either()


metadata = subprocess.run(
    ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", str(root / "Cargo.toml")],
    capture_output=True,
    check=True,
)
packages = json.loads(metadata.stdout)["packages"]
wrong = []
for package in packages:
    name = f"{package['name']} {package['version']}"
    if not package["license"] or not holds(package["license"]):
        wrong.append(f"{name}: licence {package['license']!r} is not allowed")
    if package["name"] in banned:
        wrong.append(f"{name}: {banned[package['name']]}")
    if package["source"] is not None and package["source"] not in registries:
        wrong.append(f"{name}: comes from {package['source']}")
print("\n".join(wrong) or f"{len(packages)} packages are as deny.toml wants them")
sys.exit(bool(wrong))
