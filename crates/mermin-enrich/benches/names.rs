//! A record's two lookups among 10 000 networks.

use criterion::{Criterion, criterion_group, criterion_main};
use mermin_enrich::{Names, NamesByNetwork};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

fn lookups(criterion: &mut Criterion) {
    // Three levels of nesting, spread over 10.0.0.0/8 by a multiplicative walk.
    let networks = (0..10_000_u32).map(|n| {
        let len = [16, 20, 24, 28][n as usize % 4];
        let address = Ipv4Addr::from_bits(0x0a00_0000 | n.wrapping_mul(2_654_435_761) >> 8);
        let network = ipnet::Ipv4Net::new(address, len).expect("at most 32").trunc();
        (network.to_string().parse().expect("a network"), format!("net {n}"))
    });
    let table = NamesByNetwork::new(&Names(networks.collect()));
    let mut n = 0_u32;
    criterion.bench_function("two names, 10 000 networks", |bencher| {
        bencher.iter(|| {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let ends = [n >> 8, n.wrapping_mul(747_796_405) >> 8];
            ends.map(|end| table.name(black_box(IpAddr::V4((0x0a00_0000 | end).into()))).cloned())
        });
    });
}

criterion_group!(benches, lookups);
criterion_main!(benches);
