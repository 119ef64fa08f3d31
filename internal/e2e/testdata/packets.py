"""Sends packets of one kind from the agent's interface, below the kernel's own checks. Every one carries a canary."""
import socket
import struct
import sys

CANARY = b"CANARY-rootcell"
IFACE = "eth0"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(src, dst, proto, payload, ident=7, frag=0, options=b"", ttl=64):
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | length // 4, 0, length + len(payload), ident, frag, ttl, proto, 0,
                       socket.inet_aton(src), socket.inet_aton(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(src, dst, sport, dport, data):
    length = 8 + len(data)
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 17, length)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    return head[:6] + struct.pack("!H", checksum(pseudo + head + data) or 0xFFFF) + data


def tcp(src, dst, sport, dport, flags, data=b"", options=b""):
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 6, len(head) + len(data))
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


class Wire:
    def __init__(self, peer):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sock.bind((IFACE, 0))
        self.mac = self.sock.getsockname()[4]
        with open("/proc/net/arp") as table:
            rows = [line.split() for line in table]
        self.peer = next(bytes.fromhex(r[3].replace(":", "")) for r in rows if r[0] == peer)

    def send(self, payload, kind=0x0800, dst=None):
        self.sock.send((dst or self.peer) + self.mac + struct.pack("!H", kind) + payload)


def main():
    what, agent, firewall, far = sys.argv[1:5]
    wire = Wire(firewall)
    if what == "protocols":
        for proto in (1, 2, 4, 33, 41, 47, 50, 51, 89, 132, 136, 253):
            body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + CANARY if proto == 1 else ipv4(agent, far, 17, udp(agent, far, 9, 443, CANARY)) if proto == 4 else CANARY * 3
            if proto == 1:
                body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
            for dst in (far, firewall):
                wire.send(ipv4(agent, dst, proto, body))
    elif what == "spoof":
        for src in ("192.168.77.99", firewall, "127.0.0.1", far, sys.argv[5], "0.0.0.0", "255.255.255.255"):
            wire.send(ipv4(src, far, 17, udp(src, far, 9, 443, CANARY)))
            wire.send(ipv4(src, firewall, 17, udp(src, firewall, 9, 53, CANARY)))
            wire.send(ipv4(src, far, 6, tcp(src, far, 9, 443, 2)))
    elif what == "spoofdns":
        for port in range(30000, 30200):
            wire.send(ipv4(far, sys.argv[5], 17, udp(far, sys.argv[5], 53, port, CANARY)))
            wire.send(ipv4(far, firewall, 17, udp(far, firewall, 53, port, CANARY)))
    elif what == "loopback":
        for dst in ("127.0.0.1", sys.argv[5]):
            wire.send(ipv4(agent, dst, 17, udp(agent, dst, 9, 9999, CANARY)))
            wire.send(ipv4("127.0.0.1", dst, 17, udp("127.0.0.1", dst, 9, 9999, CANARY)))
    elif what == "options":
        hops = socket.inet_aton(firewall) + socket.inet_aton(far)
        for options in (b"\x83\x0b\x04" + hops + b"\0", b"\x89\x0b\x04" + hops + b"\0", b"\x07\x0b\x04" + bytes(9), b"\x44\x0c\x05\x00" + bytes(8), b"\x94\x04\0\0"):
            for dst in (far, firewall):
                wire.send(ipv4(agent, dst, 17, udp(agent, dst, 9, 53, CANARY), options=options))
    elif what == "fragments":
        whole = udp(agent, far, 9, 443, CANARY * 100)
        for start in range(0, len(whole), 64):
            more = 0x2000 if start + 64 < len(whole) else 0
            wire.send(ipv4(agent, far, 17, whole[start:start + 64], ident=77, frag=more | start // 8))
        syn = tcp(agent, far, 9, 80, 2, CANARY)
        wire.send(ipv4(agent, far, 6, syn[:8], ident=78, frag=0x2000))
        wire.send(ipv4(agent, far, 6, tcp(agent, far, 9, 443, 2)[:8], ident=78, frag=0x2000))
        wire.send(ipv4(agent, far, 6, syn[8:], ident=78, frag=1))
        wire.send(ipv4(agent, far, 17, CANARY * 4, ident=79, frag=8191))
    elif what == "fastopen":
        for dport in (80, 22, 443):
            wire.send(ipv4(agent, far, 6, tcp(agent, far, 4000 + dport, dport, 2, CANARY, b"\x22\x0a12345678\x01\x01")))
            wire.send(ipv4(agent, far, 6, tcp(agent, far, 5000 + dport, dport, 0x22, CANARY, b"\x02\x04\x00\x01")))
        for flags in (0, 1, 4, 0x10, 0x12, 0x29, 0x3F):
            wire.send(ipv4(agent, far, 6, tcp(agent, far, 6000, 443, flags, CANARY)))
    elif what == "frames":
        inner = ipv4(agent, far, 17, udp(agent, far, 9, 443, CANARY))
        wire.send(struct.pack("!HH", 5, 0x0800) + inner, 0x8100)
        wire.send(struct.pack("!HHHH", 5, 0x8100, 6, 0x0800) + inner, 0x88A8)
        wire.send(CANARY, 0x88CC, bytes.fromhex("0180c200000e"))
        wire.send(CANARY, 0x888E, bytes.fromhex("0180c2000003"))
        wire.send(CANARY, 0x8863)
        for group, port in (("224.0.0.251", 5353), ("239.255.255.250", 1900), ("224.0.1.1", 123), ("255.255.255.255", 67)):
            mac = b"\xff" * 6 if group.startswith("255") else b"\x01\0\x5e" + socket.inet_aton(group)[1:]
            wire.send(ipv4(agent, group, 17, udp(agent, group, 9, port, CANARY), ttl=255), dst=mac)
    elif what == "arp":
        for claimed in (far, firewall, sys.argv[5]):
            for op in (1, 2):
                body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, op, wire.mac, socket.inet_aton(claimed), b"\xff" * 6, socket.inet_aton(claimed))
                wire.send(body, 0x0806, b"\xff" * 6)
    elif what == "dhcp":
        offer = struct.pack("!BBBBIHH4s4s4s4s16s192s4s", 2, 1, 6, 0, 7, 0, 0x8000, b"", socket.inet_aton("192.168.77.66"), socket.inet_aton(agent), b"", wire.peer + bytes(10), b"",
                            b"\x63\x82\x53\x63") + b"\x35\x01\x05\x03\x04" + socket.inet_aton(agent) + b"\xff" + CANARY
        for dst in (firewall, "255.255.255.255"):
            wire.send(ipv4(agent, dst, 17, udp(agent, dst, 67, 68, offer)), dst=None if dst == firewall else b"\xff" * 6)
    elif what == "ra":
        src = socket.inet_pton(socket.AF_INET6, "fe80::1")
        dst = socket.inet_pton(socket.AF_INET6, "ff02::1")
        icmp = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 86400, 14400, 0, socket.inet_pton(socket.AF_INET6, "2001:db8:bad::"))
        pseudo = src + dst + struct.pack("!II", len(icmp), 58)
        icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
        wire.send(struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + src + dst + icmp, 0x86DD, bytes.fromhex("333300000001"))
    else:
        sys.exit("unknown kind " + what)


main()
