//! Which addresses are public: reachable by everybody, and so for a crawler that follows what strangers write.
//!
//! Promise: no address of a private or reserved network is public, in whatever form IPv6 carries it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is globally reachable, by IANA's registries of special-purpose addresses (RFC 6890). An IPv6
/// address that carries an IPv4 address is public only if that one is too.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !is_reserved_v4(ip),
        IpAddr::V6(ip) => !is_reserved_v6(ip) && carried_v4(ip).into_iter().flatten().all(|ip| !is_reserved_v4(ip)),
    }
}

fn is_reserved_v4(ip: Ipv4Addr) -> bool {
    match ip.octets() {
        // This network, private, loopback, link-local.
        [0 | 10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [169, 254, ..] => true,
        // Carrier-grade NAT, protocol assignments, benchmarks.
        [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => true,
        // Documentation.
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    }
}

fn is_reserved_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Unspecified, loopback and the obsolete IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // Unique local, link-local, the obsolete site-local, multicast.
        [0xfc00..=0xfdff, ..] | [0xfe80..=0xfeff, ..] | [0xff00..=0xffff, ..] => true,
        // Documentation, discard-only, local-use NAT64.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x100, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => true,
        _ => false,
    }
}

/// IPv4 addresses inside an IPv6 address: mapped and translated (RFC 4291, RFC 2765), NAT64 (RFC 6052), 6to4 (RFC 3056),
/// and Teredo's server and, inverted, client (RFC 4380).
fn carried_v4(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => [v4(high, low), None],
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => [v4(high, low), None],
        [0x2001, 0, high, low, _, _, client_high, client_low] => [v4(high, low), v4(!client_high, !client_low)],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and last address of every denied range, and the public neighbours on both sides.
    #[test]
    fn every_denied_range_ends_where_it_ends() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "::ffff:ffff", None, None),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fbff::"), Some("fe00::")),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fe7f::"), None),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db7::"), Some("2001:db9::")),
            ("100::", "100::ffff:ffff:ffff:ffff", Some("ff::"), Some("100:0:0:1::")),
        ];
        let public = |text: &str| is_public(text.parse().expect(text));
        for (first, last, before, after) in ranges {
            assert!(!public(first) && !public(last), "{first} to {last} is denied");
            for neighbour in [before, after].into_iter().flatten() {
                assert!(public(neighbour), "{neighbour} is public");
            }
        }
    }

    #[test]
    fn an_embedded_private_address_is_private() {
        // Of the last one both halves decide.
        let private = "10.1.2.3 127.0.0.1 169.254.169.254 192.168.0.1 192.0.2.1";
        let public = "9.9.9.9 93.184.216.34";
        let wrap = |text: &str| -> Vec<Ipv6Addr> {
            let v4: Ipv4Addr = text.parse().expect(text);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            vec![
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0909, !0x0909),
                Ipv6Addr::new(0x2001, 0, 0x0909, 0x0909, 0, 0, !high, !low),
            ]
        };
        for v6 in private.split(' ').flat_map(wrap) {
            assert!(!is_public(v6.into()), "{v6}");
        }
        for v6 in public.split(' ').flat_map(wrap) {
            assert!(is_public(v6.into()), "{v6}");
        }
    }
}
