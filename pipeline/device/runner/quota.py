# SPDX-License-Identifier: AGPL-3.0-only
"""Read how much CPU time a container may use."""

from __future__ import annotations

import math
from pathlib import Path


def quota(root: Path = Path("/")) -> float:
    """Return how many CPUs the control groups of this process allow (`docker --cpus`); infinity without a limit.

    The limits of all parent groups apply too. In a container, the group's path may be one of the host that does not
    exist inside; then the files in the top folder hold the limit.
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
    """Return the limit of one group in CPUs, from `cpu.max` (version 2) or the two files of version 1."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            words = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
            share, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # no such file; "max" and -1 are no limit
            continue
        if share > 0 and period > 0:
            return share / period
    return math.inf
