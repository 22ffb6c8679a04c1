# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files/bpf/impair.c does to packets that a test builds and nobody sends (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import itertools
import random
import struct
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration import bpf_program as kernel
from tests.integration.bpf_program import ALL, ALWAYS, DROP, EVERYTHING, EXACTLY, PASS, Chooser, Fields, Loaded, Rule
from tests.oracle import chance, packets

PACKET = bytes(12) + b"\x08\x00" + bytes(60)
WITH_IPV4 = (
    bytes(12) + b"\x08\x00" + struct.pack("!BBHIBBH8s", 0x45, 7, 60, 0, 64, packets.UDP, 0, b"fromto--") + bytes(60)
)
WITH_IPV6 = bytes(12) + b"\x86\xdd" + struct.pack("!IHBB32s", 0x60300000, 30, packets.UDP, 64, b"A" * 32) + bytes(60)
PART = 5 if kernel.GIVEN.exists() else 1  # a virtual machine, whose interpreter is slow, sees one of five examples
DROPPED = Rule(drop=Chooser(kind=ALL))
NAMES = [name for name, *_kind in Fields._fields_]


@pytest.fixture(scope="module")
def program() -> Iterator[Loaded]:
    made = Loaded(kernel.compiled())
    yield made
    made.close()


def examples(count: int) -> settings:
    return settings(max_examples=count // PART)


def fields(frame: packets.Frame, **more: int) -> Fields:
    made = Fields(mark=more.get("mark", 0), in_interface=more.get("in_interface", 0))
    for name in ("vlan", "protocol", "dscp", "tags", "ports"):
        setattr(made, name, getattr(frame, name))
    for name in ("ethertype", "source_port", "destination_port"):
        setattr(made, name, (ctypes.c_uint8 * 2)(*getattr(frame, name).to_bytes(2, "big")))
    for name in ("source", "destination", "source_mac", "destination_mac"):
        array = type(getattr(made, name))
        setattr(made, name, array(*getattr(frame, name)))
    return made


def only(*names: str) -> Fields:
    """A mask of these fields."""
    made = Fields()
    for name in names:
        member = getattr(Fields, name)
        ctypes.memset(ctypes.addressof(made) + member.offset, 0xFF, member.size)
    return made


def masked(whole: Fields, mask: Fields) -> Fields:
    return Fields.from_buffer_copy(bytes(one & two for one, two in zip(bytes(whole), bytes(mask))))


def exact_shape(program: Loaded) -> None:
    """All packets of exactly the fields of a match will be dropped."""
    program.shape(0, EXACTLY)
    program.no_shape(1)
    program.rule(1, DROPPED)


def is_exactly(program: Loaded, data: bytes, wanted: Fields, **context: int) -> bool:
    """Whether the program finds these values, all of them."""
    program.match(0, wanted, 1)
    try:
        return program.run(data, **context).verdict == DROP
    finally:
        program.no_match(0, wanted)


def runnable(data: bytes) -> bytes:
    """Newer kernels run no program on IP that is shorter than its header, unless a VLAN tag stands before it."""
    least = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(data[12:14], 0)
    return data[:12] + b"\x81\x00\x00\x05" + data[12:] if len(data) < least else data


def differing(program: Loaded, data: bytes, wanted: Fields, **context: int) -> list[str]:
    """Names of the fields in which the program finds another value; for people."""
    found = []
    for name in NAMES:
        program.shape(0, only(name))
        found += [name] if not is_exactly(program, data, masked(wanted, only(name)), **context) else []
    program.shape(0, EXACTLY)
    return found


# ---- What the packet is ----


@examples(250)
@given(built=packets.frames(), mark=st.integers(0, 2**32 - 1), port=st.sampled_from((0, 1)))
def test_every_field_of_a_packet(program: Loaded, built: packets.Built, mark: int, port: int) -> None:
    assert packets.read(built.data) == built.frame
    exact_shape(program)
    wanted = fields(built.frame, mark=mark, in_interface=port)
    context = {"mark": mark, "ingress": port, "ifindex": port}
    assert is_exactly(program, built.data, wanted, **context), differing(program, built.data, wanted, **context)


@examples(40)
@given(built=packets.frames())
def test_a_packet_that_ends_at_any_byte(program: Loaded, built: packets.Built) -> None:
    exact_shape(program)
    for end in range(14, len(built.data)):
        data = runnable(built.data[:end])
        wanted = fields(packets.read(data))
        assert is_exactly(program, data, wanted), (end, differing(program, data, wanted))


@examples(300)
@given(
    built=packets.frames(),
    changes=st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_packet_with_any_bytes_changed(program: Loaded, built: packets.Built, changes: list[tuple[int, int]]) -> None:
    exact_shape(program)
    data = bytearray(built.data)
    for place, value in changes:
        data[place if place < len(data) else 12] = value
    changed = runnable(bytes(data))
    wanted = fields(packets.read(changed))
    assert is_exactly(program, changed, wanted), differing(program, changed, wanted)


@pytest.mark.parametrize("whole", [WITH_IPV4, WITH_IPV6], ids=["ipv4", "ipv6"])
def test_any_version_and_length_of_an_ip_header(program: Loaded, whole: bytes) -> None:
    exact_shape(program)
    for first in range(256):
        data = whole[:14] + bytes([first]) + whole[15:]
        wanted = fields(packets.read(data))
        assert is_exactly(program, data, wanted), (first, differing(program, data, wanted))


@pytest.mark.parametrize("count", [7, 8, 9])
def test_as_many_extension_headers_as_are_followed(program: Loaded, count: int) -> None:
    """Behind more than eight of them is no protocol."""
    exact_shape(program)
    kinds = [packets.OPTIONS] * (count - 1) + [packets.UDP]
    headers = b"".join(struct.pack("!BB6x", kind, 0) for kind in kinds)
    head = struct.pack("!IHBB32s", 0x60000000, len(headers) + 8, packets.HOP, 64, b"A" * 32)
    data = bytes(12) + b"\x86\xdd" + head + headers + b"\1\2\3\4\0\x08\0\0"
    wanted = packets.read(data)
    assert (wanted.protocol, wanted.ports) == ((packets.UDP, 1) if count <= 8 else (0, 0))
    assert is_exactly(program, data, fields(wanted)), differing(program, data, fields(wanted))


@examples(200)
@given(st.sampled_from((b"\x08\x00\x45", b"\x08\x00", b"\x86\xdd\x60", b"\x81\x00", b"")), st.binary(max_size=120))
def test_a_packet_of_anything(program: Loaded, head: bytes, rest: bytes) -> None:
    exact_shape(program)
    data = runnable((bytes(12) + head + rest).ljust(14, b"\0"))
    wanted = fields(packets.read(data))
    assert is_exactly(program, data, wanted), differing(program, data, wanted)


@examples(60)
@given(built=packets.frames())
def test_each_field_matches_by_itself_and_another_value_does_not(program: Loaded, built: packets.Built) -> None:
    program.clear()
    program.rule(1, DROPPED)
    found = fields(built.frame, mark=5, in_interface=1)
    for name in NAMES:
        mask = only(name)
        program.shape(0, mask)
        own = masked(found, mask)
        other = bytearray(own)
        other[getattr(Fields, name).offset] ^= 1
        for wanted, verdict in ((own, DROP), (Fields.from_buffer_copy(other), PASS)):
            program.match(0, wanted, 1)
            assert program.run(built.data, mark=5, ingress=1, ifindex=1).verdict == verdict, name
            program.no_match(0, wanted)


def test_another_packet_of_the_same_key_does_not_match(program: Loaded) -> None:
    """The sums are the same where each of two words is the other's factor."""
    one, other = (kernel.factor(word).to_bytes(8, sys.byteorder) for word in (0, 1))
    frame = bytes(12) + b"\x86\xdd" + b"\x60" + bytes(3) + b"\0\x08\x3b\x40"  # IPv6, no next header
    program.clear()
    program.rule(1, DROPPED)
    program.shape(0, only("source"))
    program.match(0, Fields(source=tuple(other + bytes(8))), 1)
    program.match(0, Fields(), 1)
    for source, verdict in ((other + bytes(8), DROP), (bytes(8) + one, PASS), (bytes(16), DROP)):
        assert program.run(frame + source + bytes(24)).verdict == verdict


@examples(60)
@given(
    built=packets.frames(),
    masks=st.lists(st.sets(st.sampled_from(NAMES), max_size=4), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_the_least_order_wins(program: Loaded, built: packets.Built, masks: list[set[str]], seed: int) -> None:
    """Each shape has a match that fits and one that does not; their orders are any, as long as `behind` is right."""
    chance_ = random.Random(seed)
    program.clear()
    found = fields(built.frame, mark=5)
    orders = list(range(2 * len(masks)))
    chance_.shuffle(orders)
    shapes = sorted((min(pair), max(pair), mask) for pair, mask in zip(zip(orders[::2], orders[1::2]), masks))
    fitting = []
    for index, (first, second, names) in enumerate(shapes):
        mask = only(*names)
        program.shape(index, mask, shapes[index + 1][0] if index + 1 < len(shapes) else kernel.LAST)
        own = masked(found, mask)
        fits = [chance_.choice((first, second))]
        if not names:
            fits = [first]
        program.match(index, own, 0, order=fits[0], priority=fits[0] + 1)
        fitting += fits
        if names:
            other = bytearray(own)
            other[getattr(Fields, min(names)).offset] ^= 1
            program.match(index, Fields.from_buffer_copy(other), 0, order=first + second - fits[0], priority=999)
    assert program.run(built.data, mark=5).priority == min(fitting) + 1


def test_all_shapes_are_looked_at_until_the_list_ends(program: Loaded) -> None:
    program.clear()
    for index in range(64):
        program.shape(index, EVERYTHING, behind=index + 1)
    program.match(63, EVERYTHING, 0, order=63, priority=7)
    assert program.run(PACKET).priority == 7
    program.no_shape(40)
    assert program.run(PACKET).priority == 0


def test_what_nothing_matches_passes(program: Loaded) -> None:
    program.clear()
    found = program.run(PACKET, mark=7, priority=9)
    assert (found.verdict, found.packet, found.mark, found.priority) == (PASS, PACKET, 7, 9)


def test_a_match_may_have_a_class_alone(program: Loaded) -> None:
    """Rule 0 is none, and so is one that is not there: HTB's class is set all the same."""
    for rule in (0, 77):
        program.clear()
        program.shape(0, EVERYTHING)
        program.match(0, EVERYTHING, rule, priority=0x10002)
        assert program.run(PACKET, priority=9)[:1] + program.run(PACKET)[3:4] == (PASS, 0x10002)
    program.only(Rule())
    assert program.run(PACKET, priority=9).priority == 9


# ---- Which packets are chosen ----


def chosen(program: Loaded, chooser: Chooser, count: int) -> list[int]:
    """Numbers of the packets that are dropped."""
    program.only(Rule(drop=chooser))
    return dropped(program, count)


def dropped(program: Loaded, count: int) -> list[int]:
    found = [number for number in range(count) if program.run(PACKET).verdict == DROP]
    state = program.state()
    assert (state.seen, state.dropped) == (count, len(found))
    return found


@examples(30)
@given(every=st.integers(1, 70), data=st.data())
def test_every_nth_packet(program: Loaded, every: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, every - 1))
    wanted = list(range(place, 150, every))
    assert chosen(program, Chooser(kind=kernel.EVERY, every=every, place=place), 150) == wanted
    program.only(Rule(drop=Chooser(kind=ALL)))  # of which the next says otherwise
    program.drop(1, every, place)
    assert dropped(program, 150) == wanted


@examples(30)
@given(pattern=st.lists(st.booleans(), min_size=1, max_size=1024))
def test_a_pattern(program: Loaded, pattern: list[bool]) -> None:
    chooser = Chooser(kind=kernel.PATTERN, every=len(pattern))
    for number, is_set in enumerate(pattern):
        chooser.pattern[number // 64] |= int(is_set) << number % 64
    count = min(2 * len(pattern) + 10, 1200)
    wanted = [number for number, is_set in zip(range(count), itertools.cycle(pattern)) if is_set]
    assert chosen(program, chooser, count) == wanted


def test_the_longest_pattern_is_whole(program: Loaded) -> None:
    chooser = Chooser(kind=kernel.PATTERN, every=1024)
    chooser.pattern[15] = 1 << 63
    assert chosen(program, chooser, 2100) == [1023, 2047]


def test_never_and_always(program: Loaded) -> None:
    assert chosen(program, Chooser(kind=kernel.NEVER), 50) == []
    assert chosen(program, Chooser(kind=ALL), 50) == list(range(50))
    assert chosen(program, Chooser(kind=kernel.EVERY), 50) == []
    assert chosen(program, Chooser(kind=kernel.PATTERN), 50) == []
    assert chosen(program, Chooser(kind=99), 50) == []
    assert chosen(program, random_chooser(ALWAYS, 1), 50) == list(range(50))
    assert chosen(program, random_chooser(0, 1), 50) == []


def test_the_ends_of_chance(program: Loaded) -> None:
    """Seeds whose first draw is the least, and the greatest: 0 is below 1, not below 0, and all are below always."""
    least, greatest = -0x9E3779B97F4A7C15 % 2**64, 0x561AC6DB83AB17A4
    assert [next(chance.draws(seed, 0))[0] for seed in (least, greatest)] == [0, ALWAYS]
    found = [len(chosen(program, random_chooser(part, least), 1)) for part in (0, 1, ALWAYS)]
    found += [len(chosen(program, random_chooser(part, greatest), 1)) for part in (ALWAYS - 1, ALWAYS)]
    assert found == [0, 1, 1, 0, 1]


def random_chooser(part: int, seed: int | None) -> Chooser:
    return Chooser(kind=kernel.RANDOM, chances=(part,), seeded=seed is not None, seed=seed or 0)


CHAINS: dict[int, list[tuple[float, ...]]] = {
    kernel.GILBERT_ELLIOTT: [(0.01, 0.1, 1.0, 0.0), (0.3, 0.2, 0.7, 0.1)],
    kernel.FOUR_STATE: [(0.01, 0.1, 0.0, 0.0, 0.0), (0.05, 0.2, 0.3, 0.4, 0.03)],
}


def chain_chooser(kind: int, parts: tuple[float, ...], seed: int | None) -> Chooser:
    chances = [min(round(part * 2**32), ALWAYS) for part in parts]
    return Chooser(kind=kind, chances=tuple(chances), seeded=seed is not None, seed=seed or 0)


def model(kind: int, parts: tuple[float, ...], pairs: Iterator[tuple[int, int]], count: int) -> list[int]:
    """Numbers of the packets that netem's code takes with these draws."""
    if kind == kernel.GILBERT_ELLIOTT:
        lost = chance.loss_gilb_ell(parts, pairs)
    else:
        lost = chance.loss_4state(parts, (first for first, _second in pairs))
    return [number for number, is_lost in zip(range(count), lost) if is_lost]


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_a_seed_makes_chance_repeatable(program: Loaded, seed: int) -> None:
    drawn = zip(range(2000), chance.draws(seed, 0))
    wanted = [number for number, (first, _second) in drawn if first < 2**29]
    assert chosen(program, random_chooser(2**29, seed), 2000) == wanted


@pytest.mark.parametrize(("kind", "parts"), [(kind, parts) for kind in CHAINS for parts in CHAINS[kind]])
def test_seeded_chains_are_those_of_netem(program: Loaded, kind: int, parts: tuple[float, ...]) -> None:
    wanted = model(kind, parts, chance.draws(7, 0), 3000)
    assert len(wanted) > 100
    assert chosen(program, chain_chooser(kind, parts, 7), 3000) == wanted


@pytest.mark.parametrize(("kind", "parts"), [(kind, parts) for kind in CHAINS for parts in CHAINS[kind]])
def test_chains_lose_as_much_as_they_should(program: Loaded, kind: int, parts: tuple[float, ...]) -> None:
    """By the kernel's own generator. Of bursts of ten a million packets have 1.3 % standard deviation: six of them."""
    count = 1_000_000 // PART
    program.only(Rule(drop=chain_chooser(kind, parts, None)))
    program.run(PACKET, repeat=count)
    share = chance.gilb_ell_share(parts) if kind == kernel.GILBERT_ELLIOTT else chance.four_state_share(parts)
    assert program.state().dropped / count == pytest.approx(share, rel=0.08 * PART**0.5)


def test_bursts_are_as_long_as_those_of_netem(program: Loaded) -> None:
    """Gilbert-Elliott with r = 10 %: ten packets, each of which is lost."""
    found = chosen(program, chain_chooser(kernel.GILBERT_ELLIOTT, (0.02, 0.1, 1.0, 0.0), None), 20_000 // PART)
    bursts = 1 + sum(1 for one, two in itertools.pairwise(found) if two != one + 1)
    assert len(found) / bursts == pytest.approx(10, rel=0.3 * PART**0.5)


def test_chance_without_a_seed(program: Loaded) -> None:
    """10 %: 20 000 of 200 000, by seven standard deviations (of 134)."""
    program.only(Rule(drop=random_chooser(2**32 // 10, None)))
    program.run(PACKET, repeat=200_000)
    assert program.state().dropped == pytest.approx(20_000, abs=950)


def test_choosers_have_chances_of_their_own(program: Loaded) -> None:
    chooser = random_chooser(2**30, 5)
    rule = Rule(drop=chooser, corrupt=chooser, mark=chooser, length=1, mark_value=1, mark_mask=1)
    rule.xor[0] = 1
    rule.base = kernel.NETWORK
    program.only(rule)
    found = [program.run(PACKET) for _number in range(400)]
    expected = [[first < 2**30 for first, _s in itertools.islice(chance.draws(5, which), 400)] for which in (0, 1, 3)]
    for one, dropped, corrupted, marked in zip(found, *expected):
        assert (one.verdict == DROP) == dropped
        if not dropped:
            assert (one.packet != PACKET, one.mark) == (corrupted, int(marked))


def test_a_rule_changes_and_the_count_goes_on(program: Loaded) -> None:
    program.only(Rule(drop=Chooser(kind=kernel.EVERY, every=4, place=3)))
    verdicts = []
    for every in (4, 4, 5):
        program.rule(1, Rule(drop=Chooser(kind=kernel.EVERY, every=every, place=3)))
        verdicts += [program.run(PACKET).verdict for _number in range(10)]
    dropped = [number for number, verdict in enumerate(verdicts) if verdict == DROP]
    assert dropped == [3, 7, 11, 15, 19, 23, 28]


def test_counts_are_exact_with_many_cpus(program: Loaded) -> None:
    """Four threads run the program at once; each packet is chosen once."""
    pattern = Chooser(kind=kernel.PATTERN, every=7)
    pattern.pattern[0] = 0b1010001
    rule = Rule(drop=Chooser(kind=kernel.EVERY, every=2, place=1), mark=pattern)
    program.only(rule)
    each = 100_000
    threads = [threading.Thread(target=program.run, args=(PACKET, each)) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = program.state()
    assert (state.seen, state.dropped) == (4 * each, 4 * each // 2)
    marked = [number for number in range(4 * each) if number % 7 in (0, 4, 6) and number % 2 != 1]
    assert state.marked == len(marked)


# ---- What they suffer ----


def test_marks_leave_the_bits_of_others(program: Loaded) -> None:
    program.only(Rule(mark=Chooser(kind=ALL), mark_value=0x50000, mark_mask=0xFF0000))
    assert program.run(PACKET, mark=0xAAAAAAAA).mark == 0xAA05AAAA
    assert program.state().marked == 1


def test_what_is_dropped_suffers_nothing_else(program: Loaded) -> None:
    every = Chooser(kind=ALL)
    program.only(Rule(drop=every, corrupt=every, duplicate=every, mark=every, mark_value=1, mark_mask=1, length=4))
    found = program.run(PACKET)
    state = program.state()
    assert (found.verdict, found.mark, found.packet) == (DROP, 0, PACKET)
    assert (state.dropped, state.corrupted, state.duplicated, state.marked) == (1, 0, 0, 0)


def test_superpackets_are_counted(program: Loaded) -> None:
    program.only(Rule())
    program.run(PACKET)
    program.run(PACKET, segments=40, segment_size=1000)
    state = program.state()
    assert (state.seen, state.superpackets, state.segments) == (2, 1, 40)


BASES = {kernel.PAYLOAD: packets.payload, kernel.TRANSPORT: lambda _data, frame: frame.transport}
BASES[kernel.NETWORK] = lambda _data, frame: frame.network


@examples(250)
@given(
    built=packets.frames(),
    base=st.sampled_from((kernel.PAYLOAD, kernel.TRANSPORT, kernel.NETWORK)),
    offset=st.integers(0, 50),
    xor=st.binary(min_size=1, max_size=16),
    is_fixed=st.booleans(),
)
def test_corruption(program: Loaded, built: packets.Built, base: int, offset: int, xor: bytes, is_fixed: bool) -> None:
    """Exactly these bytes change, but for checksums that are to fit, and these do."""
    rule = Rule(corrupt=Chooser(kind=ALL), base=base, offset=offset, length=len(xor), fix_checksums=is_fixed)
    rule.xor[: len(xor)] = xor
    program.only(rule)
    data, frame = built
    found = program.run(data).packet
    start = BASES[base](data, frame) + offset
    places = range(start, min(start + len(xor), frame.end))
    sums = packets.sum_places(data, frame) if is_fixed else []
    fixed = {place + byte for place in sums for byte in (0, 1)}
    wanted = bytearray(data)
    for place, change in zip(places, xor):
        wanted[place] ^= change
    assert len(found) == len(data)
    assert [place for place in range(len(data)) if place not in fixed and found[place] != wanted[place]] == []
    assert program.state().corrupted == (1 if places else 0)
    if is_fixed:
        check_sums(data, found, frame, sums)


def check_sums(before: bytes, after: bytes, frame: packets.Frame, places: list[int]) -> None:
    """Sums are what they were: 0 in a right packet, and what the rest of a fragmented datagram makes 0."""
    if frame.network + 10 in places:
        head = slice(frame.network, frame.transport)
        assert packets.total(before[head]) == packets.total(after[head]) == 0
    own = [place for place in places if place >= frame.transport]
    if not own or before[own[0] : own[0] + 2] == after[own[0] : own[0] + 2] == b"\0\0":
        return  # UDP without a checksum keeps none
    source, destination = addresses(after, frame)
    changed = frame._replace(source=source, destination=destination)
    if packets.covered_end(before, frame) == packets.covered_end(after, frame):  # UDP's length was not hit
        assert packets.transport_total(before, frame) == packets.transport_total(after, changed)
    if frame.protocol == packets.UDP:
        assert after[own[0] : own[0] + 2] != b"\0\0"


def addresses(data: bytes, frame: packets.Frame) -> tuple[bytes, bytes]:
    size, at = (4, 12) if frame.ethertype == packets.IPV4 else (16, 8)
    start = frame.network + at
    return data[start : start + size], data[start + size : start + 2 * size]


def test_udp_without_a_checksum_keeps_none(program: Loaded) -> None:
    rule = Rule(corrupt=Chooser(kind=ALL), base=kernel.TRANSPORT, offset=4, length=8, fix_checksums=1)
    rule.xor[:8] = b"\0\0\1\2\3\4\5\6"
    program.only(rule)
    udp = (
        bytes(12) + b"\x08\x00" + bytes.fromhex("4500002000000000401100000a0000010a000002") + b"\1\2\3\4\0\x0c\0\0data"
    )
    assert program.run(udp).packet[38:] == b"\0\x0c\0\0" + bytes(a ^ b for a, b in zip(b"data", b"\3\4\5\6"))


@pytest.mark.parametrize("protocol", [packets.ICMP, packets.TCP, packets.UDP, packets.ICMPV6])
@pytest.mark.parametrize("family", [4, 6])
def test_sums_over_addresses(program: Loaded, family: int, protocol: int) -> None:
    """They are part of the transport's checksum, but for ICMP's of IPv4."""
    if family == 4:
        head = struct.pack("!BBHIBBH", 0x45, 0, 48, 0, 64, protocol, 0) + b"fromto--"
    else:
        head = struct.pack("!IHBB", 0x60000000, 28, protocol, 64) + b"from-someoneto-someone-elsewhere"
    data = bytes(12) + (b"\x08\x00" if family == 4 else b"\x86\xdd") + head
    data += b"\1\2\3\4\0\x1c\x12\x34five\x50\0\0\0sixteen!last"
    frame = packets.read(data)
    for offset in range(8 if family == 6 else 12, len(head) - 4):
        rule = Rule(corrupt=Chooser(kind=ALL), base=kernel.NETWORK, offset=offset, length=3, fix_checksums=1)
        rule.xor[:3] = b"\x10\x03\xc0"
        program.only(rule)
        found = program.run(data).packet
        source, destination = addresses(found, frame)
        changed = frame._replace(source=source, destination=destination)
        assert found[14 + offset] == data[14 + offset] ^ 0x10
        assert packets.transport_total(found, changed) == packets.transport_total(data, frame)


@pytest.mark.parametrize(("words", "start"), [(0, 0), (4, 0), (5, 20), (6, 24), (7, 0)])
def test_payload_of_tcp(program: Loaded, words: int, start: int) -> None:
    """Behind a header of five words and more; where the header is less, or all, there is none."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 48, 0, 64, packets.TCP, 0) + b"fromto--"
    data = bytes(12) + b"\x08\x00" + head + bytes(12) + bytes([words << 4]) + bytes(15)
    rule = Rule(corrupt=Chooser(kind=ALL), length=1)
    rule.xor[0] = 0xFF
    program.only(rule)
    found = program.run(data).packet
    assert [place for place in range(len(data)) if found[place] != data[place]] == ([34 + start] if start else [])


@pytest.mark.parametrize("offset", range(6))
def test_bytes_behind_a_udp_datagram_are_not_summed(program: Loaded, offset: int) -> None:
    """UDP says that it is two bytes shorter than IP does."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 34, 0, 64, packets.UDP, 0) + b"fromto--"
    udp = bytes(12) + b"\x08\x00" + head + b"\1\2\3\4\0\x0c\x12\x34dataXY"
    frame = packets.read(udp)
    rule = Rule(corrupt=Chooser(kind=ALL), offset=offset, length=2, fix_checksums=1)
    rule.xor[:2] = b"\x10\x03"
    program.only(rule)
    found = program.run(udp).packet
    assert found[42 + offset] == udp[42 + offset] ^ 0x10
    assert packets.transport_total(found, frame) == packets.transport_total(udp, frame)


def test_a_udp_checksum_that_comes_out_as_zero(program: Loaded) -> None:
    """It is written as its other form: 0 would say that there is none."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 32, 0, 64, packets.UDP, 0) + b"fromto--"
    udp = bytes(12) + b"\x08\x00" + head + b"\1\2\3\4\0\x0c\x12\x34data"
    frame = packets.read(udp)
    right = (0x1234 - packets.transport_total(udp, frame)) % 0xFFFF
    udp = udp[:40] + struct.pack("!H", right) + udp[42:]
    assert packets.transport_total(udp, frame) == 0
    (word,) = struct.unpack("!H", b"da")
    rule = Rule(corrupt=Chooser(kind=ALL), length=2, fix_checksums=1)
    rule.xor[:2] = struct.pack("!H", word ^ (word + right) % 0xFFFF)  # the sum grows by what the checksum was
    program.only(rule)
    found = program.run(udp).packet
    assert packets.transport_total(found, frame) == 0
    assert found[40:42] == b"\xff\xff"
