# SPDX-License-Identifier: AGPL-3.0-only
"""How much of the processors a container may use."""

from __future__ import annotations

import math
from pathlib import Path


def quota(root: Path = Path("/")) -> float:
    """How many CPUs' time the control groups of this process allow (`docker --cpus`); infinite without a limit.

    A group is bound by the limits of those above it. In a container the groups may have names of the host that are
    not there, and the files are those of the top folder.
    """
    allowed = [math.inf]
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu", "cpu,cpuacct") if controllers else ("", "unified"):
            top = root / "sys/fs/cgroup" / mount
            group = top / path.strip("/")
            allowed += [_limit(folder) for folder in (group, *group.parents) if top in (folder, *folder.parents)]
    return min(allowed)


def _limit(group: Path) -> float:
    """The limit of one group, in CPUs: `cpu.max` of version 2, or the two files of version 1."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            words = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
            share, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # no such file; "max" and -1 are no limit
            continue
        if share > 0 and period > 0:
            return share / period
    return math.inf
