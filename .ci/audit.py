"""What pip-audit found, said so that silence is never taken for safety.

python .ci/audit.py FOUND.json    its --format json; exits with 1 where holes are known or nothing is
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(file: Path) -> int:
    try:
        packages = json.loads(file.read_text(encoding="utf-8"))["dependencies"]
    except (OSError, ValueError, KeyError):
        print("audit: the advisory database could not be asked, so nothing was checked", file=sys.stderr)
        return 1
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    answered = [one for one in packages if "skip_reason" not in one]
    holes = [(one, hole) for one in answered for hole in one["vulns"]]
    for one, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {hole['id']}, mended in {mended}")
    print(f"audit: {len(answered)} packages checked, {len(holes)} known holes")
    if unknown:
        print(f"audit: of {len(unknown)} the database knows nothing: {', '.join(sorted(unknown))}")
    if not answered:
        print("audit: nothing was checked", file=sys.stderr)
    return int(bool(holes) or not answered)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
