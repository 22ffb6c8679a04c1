# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One module call as a process: parameters as JSON on standard input, the result as JSON on standard output."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from plugins.module_utils.report import result
    from plugins.modules import tc

    json.dump(result(tc.run(**json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main()
