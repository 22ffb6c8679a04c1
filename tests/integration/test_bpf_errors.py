# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong with BPF is told clearly, and what stood before goes on: the same programs, maps and lost packets.

Each fault is a real one: a process without rights, one whose kernel knows no bpf(2), a file system that cannot be
written, a controller without clang, damaged objects, and programs that the verifier refuses.
"""

from __future__ import annotations

import base64
import ctypes
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import capabilities
from plugins.module_utils.bpf import layout
from plugins.module_utils.errors import TestbedError
from plugins.module_utils.impairment import engine
from plugins.plugin_utils import clang
from plugins.plugin_utils.programs import SOURCE
from tests.integration.engine import inside, namespace
from tests.integration.labs import wait_for
from tests.integration.own_programs import BEYOND, ENDLESS, EVERY_NTH, UNCHECKED, VERDICTS, Own, compiled, every_nth
from tests.integration.places import Call, Netns
from tests.integration.wire import sh

PIN = f"/sys/fs/bpf/errors_{os.getpid()}"
CAP_NET_ADMIN, CAP_DAC_OVERRIDE = 12, 1  # linux/capability.h
CAPABILITY_VERSION_3 = 0x20080522
NO_NEW_PRIVS, SET_SECCOMP, FILTER_MODE = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
RETURN_ERROR, ALLOW, ENOSYS = 0x00050000, 0x7FFF0000, 38
BPF_CALL = {"x86_64": 321}.get(os.uname().machine, 280)
EVERY = 7
COUNT = 70
Broken = Callable[[], None]


@pytest.fixture(scope="module")
def program() -> bytes:
    return clang.compile_program(SOURCE)


def pins_of(place: Netns) -> Path:
    return Path(f"/sys/fs/bpf/impair_testbed/{place.number()}")


class Standing:
    """An interface with an impairment that drops each 7th frame, and a program of a user's own before it."""

    def __init__(self, own: Own, program: bytes, code: str) -> None:
        self.own = own
        self.peer = {"t0": "p0"}.get(own.device, own.place.peer)
        with inside(own.place):
            impair([{"name": own.device, "drop": {"every": EVERY}}], program)
        own.run(attach="egress", code=code, maps={"verdicts": {"5": 2}})
        self.pins = str(pins_of(own.place))

    def refusal(self, broken: Broken, work: Callable[[], object]) -> str:
        return refusal(self.own.place, broken, work)

    def attach(self, check: bool = False, **asked: Any) -> None:
        self.own.run_here(check, attach="egress", **asked)

    def state(self) -> str:
        """Programs with the kernel's numbers, and all entries of all of their maps but what they count."""
        filters = self.own.filters()
        lines = [self.own.shell(f"tc qdisc show dev {self.own.device}; tc class show dev {self.own.device}"), filters]
        for number in re.findall(r" id (\d+)", filters):
            shown = sh(f"bpftool prog show id {number}")
            for one in re.search(r"map_ids (\S+)", shown)[1].split(","):  # type: ignore[index]
                info = sh(f"bpftool map show id {one}")
                long = re.search("name (drops|states|seen)", info)
                lines += [info] if long else [info, sh(f"bpftool map dump id {one}")]
        return "\n".join(lines)

    def lost(self) -> int:
        return lost(self.own, self.peer)


def lost(own: Own, peer: str) -> int:
    """Of 70 frames those that do not come out of the other end."""

    def received() -> int:
        return int(own.shell(f"ip -s link show {peer} | sed -n '/RX:/{{n;p}}'").split()[1])

    before = received()
    own.send(COUNT)
    return COUNT - (received() - before)


def impair(asked: Any, program: bytes) -> None:
    engine.apply(asked, [], program=engine.Program(program, ""))


@pytest.fixture
def standing(program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    # A file of its own: what a test beside this one makes the node forget, one without rights could not find again.
    monkeypatch.setattr(capabilities.load, "__defaults__", (str(tmp_path / "capabilities.json"),))
    capabilities.load()
    with namespace(1) as place:
        made = Standing(Own(place, "t0"), program, compiled(tmp_path, VERDICTS))
        yield made
        assert made.lost() == COUNT // EVERY
        made.own.run(state="absent")
        with inside(place):
            engine.clear()
        assert not Path(PIN).exists()
        assert not made.own.filters()


def refusal(place: Netns, broken: Broken, work: Callable[[], object]) -> str:
    """What the work is told in a process of its own, in the namespace, in which something is broken."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with inside(place):
                broken()
                os.write(writing, told(work).encode())
                os._exit(0)  # it may have no right to go back to where it came from
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return found


def told(work: Callable[[], object]) -> str:
    try:
        work()
    except TestbedError as error:
        return str(error)
    return "nothing"


def without_rights() -> None:
    """Keep the right to networks and files: not that to BPF."""
    keep = 1 << CAP_NET_ADMIN | 1 << CAP_DAC_OVERRIDE
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", keep, keep, 0, 0, 0, 0))
    assert libc.capset(header, data) == 0


def without_bpf() -> None:
    """The kernel answers bpf(2) as one that was built without; nothing is remembered of what it could."""
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, BPF_CALL), (0x06, 0, 0, RETURN_ERROR | ENOSYS), (0x06, 0, 0, ALLOW)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    rules = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(packed)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_SECCOMP, FILTER_MODE, ctypes.c_void_p(ctypes.addressof(rules)), 0, 0) == 0
    capabilities.load.__defaults__ = ("/dev/null/none",)


def read_only() -> None:
    """The BPF file system cannot be written, for this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    mount = "mount --make-rprivate / && mount --bind /sys/fs/bpf /sys/fs/bpf && mount -o remount,bind,ro /sys/fs/bpf"
    subprocess.run(["sh", "-c", mount], check=True)


def nothing() -> None:
    """Everything is in order."""


OTHER = [{"name": "t0", "drop": {"pattern": "01"}, "corrupt": {"every": 3}}]
MATCHED = [{"name": "t0", "classes": [{"name": "udp", "match": {"protocol": "udp"}, "drop": {"every": 2}}]}]
RIGHTS = "needs CONFIG_BPF_SYSCALL and root's rights (CAP_BPF, CAP_NET_ADMIN), which this node lacks; set `become"
NO_CALL = "the bpf system call (CONFIG_BPF_SYSCALL)"


@pytest.mark.parametrize(("broken", "said"), [(without_rights, RIGHTS), (without_bpf, "CONFIG_BPF_SYSCALL")])
def test_a_node_without_bpf(standing: Standing, program: bytes, broken: Broken, said: str) -> None:
    before = standing.state()
    nth = every_nth()
    for work in (
        partial(impair, MATCHED, program),
        partial(standing.attach, code=nth),
        partial(standing.attach, True, code=nth),
    ):
        assert said in standing.refusal(broken, work)
        assert standing.state() == before


def test_the_first_program_of_a_node_without_bpf(program: bytes) -> None:
    """What is missing is found by trying, and told by its name before anything is touched."""
    with namespace(1) as place:
        own = Own(place, "t0")
        assert "CONFIG_BPF_SYSCALL" in refusal(place, without_bpf, partial(impair, OTHER, program))
        assert NO_CALL in refusal(place, without_bpf, partial(own.run_here, attach="egress", code=every_nth()))
        assert "qdisc noqueue" in own.shell("tc qdisc show dev t0")
        assert own.filters() == ""


def test_a_file_system_that_cannot_be_written(standing: Standing, program: bytes, tmp_path: Path) -> None:
    """The entry that was set before the pin failed is as it was. Rules whose pins are gone want them again."""
    before = standing.state()
    code = compiled(tmp_path, VERDICTS.replace("*found : -1", "*found : 0"))
    said = standing.refusal(read_only, partial(standing.attach, code=code, maps={"verdicts": {"5": 1}}, pin=PIN))
    assert "Read-only file system; make it writable (mount -o remount,rw /sys/fs/bpf)" in said
    assert "the state before was restored" in said
    assert standing.state() == before
    shutil.rmtree(standing.pins)
    said = standing.refusal(read_only, partial(impair, OTHER, program))
    assert "Read-only file system; make it writable" in said
    assert "the state before was restored" in said
    assert standing.state() == before


def test_objects_that_are_damaged(standing: Standing, program: bytes) -> None:
    before = standing.state()
    for data, said in (
        (b"\0", "it is no ELF file"),
        (b"#include <linux/bpf.h>", "it is no ELF file"),
        (program[: len(program) // 2], "it ends early, or is damaged"),
        (Path("/bin/true").read_bytes(), "it was not made for BPF"),
    ):
        for work in (
            partial(standing.attach, code=base64.b64encode(data).decode()),
            partial(impair, MATCHED, data),
        ):
            found = standing.refusal(nothing, work)
            assert f" cannot be used as a BPF object: {said}" in found
            assert standing.state() == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (UNCHECKED, r"R\d invalid mem access 'map_value_or_null'"),
        (BEYOND, r"invalid access to packet, off=0 size=1"),
        (ENDLESS, r"BPF program is too large\. Processed 1000001 insn"),
    ],
)
def test_programs_that_the_verifier_refuses(standing: Standing, tmp_path: Path, text: str, why: str) -> None:
    """Its last lines say why; check mode hears them too."""
    before = standing.state()
    code = compiled(tmp_path, text)
    refused = rf"`load the BPF program \w+` failed: the kernel's verifier refuses it: .*{why}"
    for check in (True, False):
        found = standing.refusal(nothing, partial(standing.attach, check, code=code))
        assert re.match(refused, found), found
    found = standing.refusal(nothing, partial(impair, MATCHED, base64.b64decode(code)))
    assert re.match(rf"{refused}.* \(the state before was restored\)", found), found
    assert standing.state() == before


def test_a_step_that_the_kernel_refuses_is_rolled_back(standing: Standing, tmp_path: Path) -> None:
    """A map has no room for the last of its entries; those that were set before are as they were."""
    before = standing.state()
    maps = {"verdicts": {"5": 1, **{str(key): 2 for key in range(100, 120)}}}
    found = standing.refusal(nothing, partial(standing.attach, code=compiled(tmp_path, VERDICTS), maps=maps))
    assert "`set an entry of a BPF map` failed: Argument list too long (the state before was restored)" in found
    assert standing.state() == before


@pytest.mark.parametrize("more", [-8, 8])
def test_pins_of_another_version_are_replaced(program: bytes, more: int) -> None:
    """What is pinned in this namespace's place has values of another size."""
    with namespace(1) as place:
        own = Own(place, "t0")
        pins = str(pins_of(place))
        sizes = {"rules": layout.RULE_SIZE + more, "states": layout.STATE_SIZE + more}
        sh(f"rm -rf {pins}", f"mkdir -p {pins}")  # numbers of namespaces come again
        for name, size in sizes.items():
            sh(f"bpftool map create {pins}/{name} type hash key 4 value {size} entries 9 name {name}")
            sh(f"bpftool map update pinned {pins}/{name} key 1 0 0 0 value hex {'29 ' * size}")
        with inside(place):
            impair([{"name": "t0", "drop": {"every": EVERY}}], program)
        assert f"value {layout.RULE_SIZE}B" in sh(f"bpftool map show pinned {pins}/rules")
        assert lost(own, "p0") == COUNT // EVERY
        with inside(place):
            engine.clear()
        assert not Path(pins).exists()


def test_what_a_namespace_leaves_goes_with_the_next_one(program: bytes) -> None:
    """Maps of 8.5 MB would stay for ever. Those of a namespace that stands stay."""
    asked = [{"name": "t0", "drop": {"every": EVERY}}]
    with namespace(1) as standing, namespace(1) as following:
        with inside(standing):
            impair(asked, program)
        with namespace(1) as ended:
            # In a process of its own, which ends, and holds nothing then.
            assert refusal(ended, lambda: None, partial(impair, asked, program)) == "nothing"
            left, maps = pins_of(ended), sh(f"bpftool map show pinned {pins_of(ended)}/rules")
        number = maps.partition(":")[0]
        wait_for(lambda: not re.search(rf"map_ids .*\b{number}\b", sh("bpftool prog show")))  # it ends by and by
        assert left.exists()
        os.utime(left, (0, 0))
        os.utime(pins_of(standing), (0, 0))
        with inside(following):
            impair(asked, program)
        assert not left.exists()
        wait_for(lambda: f"\n{number}: " not in sh("bpftool map show"))
        for place in (standing, following):
            assert sorted(os.listdir(pins_of(place))) == ["drops", "rules", "states"]
            with inside(place):
                engine.clear()
            assert not pins_of(place).exists()


def test_a_controller_without_clang(netns: Netns, call: Call, tmp_path: Path) -> None:
    """What stood stands; what needs no program is still done."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in ("/usr/bin", "/usr/sbin"):
        for one in Path(folder).iterdir():
            if not one.name.startswith("clang") and not os.path.lexists(programs / one.name):
                (programs / one.name).symlink_to(one)
    venv = shutil.which("ansible")
    assert venv
    path = f"{Path(venv).parent}:{programs}"
    assert shutil.which("clang", path=path) is None
    quiet = "! [ -d /proc/sys/net/ipv6 ] || sysctl -qw net.ipv6.conf.all.disable_ipv6=1"
    netns.run(["sh", "-c", quiet])
    standing = Standing(Own(netns, netns.device), clang.compile_program(SOURCE), compiled(tmp_path, VERDICTS))
    own = {"name": "mine", "interface": netns.device, "attach": "egress", "source": str(EVERY_NTH)}
    before = standing.state()
    for name, asked in (
        ("bpf", own),
        ("impairment", {"interfaces": [{"name": netns.device, "drop": {"pattern": "1000"}}], "management": []}),
    ):
        refused = call(name, asked, PATH=path)
        assert refused["failed"]
        assert "compiled on the controller, which has no clang: install the package clang there" in refused["msg"]
        assert standing.state() == before
    assert standing.lost() == COUNT // EVERY
    assert call("bpf", {**own, "state": "absent"}, PATH=path)["changed"]
    plain = {"interfaces": [{"name": netns.device, "rate": "1mbit"}], "management": [], "confirm_within": 0}
    assert call("impairment", plain, PATH=path)["changed"]
    assert "bpf" not in standing.own.filters()
    assert call("impairment", {"state": "absent"}, PATH=path)["changed"]
