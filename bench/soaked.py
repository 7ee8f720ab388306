"""
Soaked: the slopes of a soak that was stopped, from the lines that it had printed.

    python bench/soak.py --minutes 120 > soak.txt
    python bench/soaked.py soak.txt --settle-minutes 20

A soak tells its slopes itself at its end, see `soak.py`; this is for one that did not get there.
And it tells what the host's RSS was in each quarter: how much of it is at work changes with the
load of the machine, which a slope does not know; its least does less.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

from slopes import slope

LINE = re.compile(
    r" *(?P<second>\d+) s  host +(?P<host>[\d.]+) \(taken +(?P<taken>[\d.]+)\)"
    r" worker +(?P<worker>[\d.]+) sqlite +(?P<sqlite>[\d.]+) MB.*?(?P<descriptors>\d+) descriptors"
    r".*ledger +(?P<ledger>[\d.]+).*archive +(?P<archive>[\d.]+) MB; +(?P<saves>\d+) saves/s"
    r" +(?P<save_ms>[\d.]+)/ *(?P<save_p99_ms>[\d.]+) ms"
    r", +(?P<recalls>\d+) recalls/s +(?P<recall_ms>[\d.]+)/ *(?P<recall_p99_ms>[\d.]+) ms"
)


def main() -> int:
    """Tell what a soak has shown so far; 1 if there are too few lines of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--settle-minutes", type=float, default=20)
    arguments = parser.parse_args()
    found = [match for line in arguments.file.open() if (match := LINE.match(line))]
    found = [one for one in found if float(one["second"]) >= 60 * arguments.settle_minutes]
    if len(found) < 4:
        print(f"{arguments.file} has {len(found)} lines of a soak from then on; 4 are needed")
        return 1
    seconds = [float(one["second"]) for one in found]
    print(f"from second {seconds[0]:.0f} on, {(seconds[-1] - seconds[0]) / 60:.1f} minutes:")
    for name in LINE.groupindex:
        values = [float(one[name]) for one in found]
        if name != "second":
            print(
                f"  {name}: {slope(seconds, values)}; {min(values):g} to {max(values):g}, median"
                f" {statistics.median(values):g}"
            )
    host = [float(one["host"]) for one in found]
    for part in range(4):
        quarter = sorted(host[len(host) * part // 4 : len(host) * (part + 1) // 4])
        low, middle = quarter[len(quarter) // 10], statistics.median(quarter)
        print(f"  host, quarter {part + 1}: {low:g} (a tenth is below), median {middle:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
