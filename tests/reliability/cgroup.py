"""A control group for one subject: a share of the CPU, a bound of memory. Version 1 and 2."""

import os
import time
from pathlib import Path

from rows import Skip

ROOT = Path("/sys/fs/cgroup")


class Cgroup:
    def __init__(self, cpu=None, memory=None):
        name = f"weir-reliability-{os.getpid()}-{time.monotonic_ns()}"
        self.folders = []
        try:
            if (ROOT / "cgroup.controllers").exists():
                (ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
                self._make(ROOT / name, {"cpu.max": cpu and f"{int(cpu * 20_000)} 20000", "memory.max": memory, "memory.swap.max": memory and 0})
                self.memory = ROOT / name / "memory.events"
            else:
                if cpu:
                    self._make(ROOT / "cpu" / name, {"cpu.cfs_period_us": 20_000, "cpu.cfs_quota_us": int(cpu * 20_000)})
                if memory:
                    self._make(ROOT / "memory" / name, {"memory.limit_in_bytes": memory})
                    self.memory = ROOT / "memory" / name / "memory.oom_control"
        except OSError as error:
            self.end()
            raise Skip(f"no control group can be made: {error}") from error
        joins = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self.folders)
        # `exec`: the subject is the child itself.
        self.wrap = ["sh", "-c", joins + 'exec "$@"', "_"]

    def _make(self, folder, settings):
        folder.mkdir()
        self.folders.append(folder)
        for key, value in settings.items():
            if value is not None:
                (folder / key).write_text(str(value))

    def killed(self):
        """Processes that the kernel killed for want of memory; -1 where it does not say."""
        for line in self.memory.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return -1

    def end(self):
        for folder in self.folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)
