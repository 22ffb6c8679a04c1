# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command whose sudo or su may ask for a password: on the node, where it is seen at once whether it does."""

from __future__ import annotations

import shlex

# o and e are the command's outputs (files/console/agent). The password must not be what the command itself reads, so
# it is written only after the prompt; and the command's input only after the success, so that it is no second password.
# When the prompt comes again, the end of the input says that there is no other password.
SCRIPT = """exec 3<&0
said() {{ cat {folder}/o {folder}/e 2>/dev/null; }}
success() {{ grep -q {success} {folder}/o 2>/dev/null; }}
asked() {{ {asked}; }}
again() {{ {again}; }}
w() {{
    n=0
    until success || [ -e {folder}/done ] || $1; do
        n=$((n+1)); [ $n -lt 100 ] || return
        sleep 0.1 2>/dev/null || sleep 1
    done
}}
rm -f {folder}/done
{{
    w asked
    if ! success && asked; then printf '%s\\n' {password}; w again; fi
    ! success || cat <&3
}} | {{
    exec 3<&-
    {command}
    c=$?
    : >{folder}/done
    exit $c
}}
"""
LITERAL = "said | grep -qF -e {prompt}", "[ $(said | grep -oF -e {prompt} | grep -c .) -gt 1 ]"
ANY = "said | grep -q ': *$'", "false"  # su's prompt depends on the language, but ends so; su asks once


def with_password(command: str, password: str, prompt: str, success: str, folder: str) -> str:
    """The command as a script that gives the password if it is asked for; `success` is printed when all is well."""
    asked, again = (text.format(prompt=shlex.quote(prompt)) for text in (LITERAL if prompt else ANY))
    return SCRIPT.format(
        folder=folder, success=success, asked=asked, again=again, password=shlex.quote(password), command=command
    )
