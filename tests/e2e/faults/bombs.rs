//! Batches that are small on the wire and huge when decompressed: whoever has to decompress them stays small.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress};
use logmill_tests::load::batch::{batch, code_at, produce_frame, produced};
use logmill_tests::load::raw::{Raw, frame, string};
use logmill_tests::load::run::create_topic;

use super::scene::Scene;

const LIST_OFFSETS: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const GZIP: i16 = 1;
const ZSTD: i16 = 4;
/// What the value of the one record of a bomb is long, in bytes.
const VALUE_BYTES: u64 = 800 << 20;
/// Four batches may be decompressed at a time, to 128 MiB each; the rest is what a node needs anyhow. In bytes.
const MAX_MEMORY_BYTES: u64 = (4 * 128 + 128) << 20;
const MIB: usize = 1 << 20;

/// The records of a batch: one, whose value is all zeros. What of it is not zero comes first.
fn record_head() -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1];
    varint(VALUE_BYTES, &mut body);
    let mut head = Vec::new();
    varint(body.len() as u64 + VALUE_BYTES + 1, &mut head);
    head.extend(body);
    head
}

/// A zigzag varint of a number that is not negative.
fn varint(number: u64, out: &mut Vec<u8>) {
    let mut rest = number << 1;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

fn zstd_bomb() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&record_head()).unwrap();
    let zeros = vec![0; MIB];
    // One zero more than the value has: the count of headers.
    for _ in 0..VALUE_BYTES / MIB as u64 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.write_all(&[0]).unwrap();
    encoder.finish().unwrap()
}

/// After a full flush equal input has equal output, so that only the first MiB of zeros needs to be compressed. The
/// checksum at the end is wrong: whoever gets there has decompressed it all.
fn gzip_bomb() -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut part = |input: &[u8]| {
        let mut out = Vec::with_capacity(2 * MIB);
        compress.compress_vec(input, &mut out, FlushCompress::Full).unwrap();
        out
    };
    let (head, zeros) = (part(&record_head()), part(&vec![0; MIB]));
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    bomb.extend(head);
    for _ in 0..VALUE_BYTES / MIB as u64 {
        bomb.extend(&zeros);
    }
    // A last block without anything, a checksum and a length.
    bomb.extend([3, 0]);
    bomb.extend([0; 8]);
    bomb
}

/// Sends a batch; the error code it is answered with, if it is answered.
fn produce(raw: &mut Raw, topic: &str, batch: &[u8]) -> Option<i16> {
    raw.send(&produce_frame(topic, 1, batch)).unwrap();
    raw.answer().unwrap().map(|answer| produced(&answer, topic))
}

/// Asks for the first record of `victim` at or after a time; the error code of the answer, if there is one.
fn offset_for_time(raw: &mut Raw, timestamp: i64) -> Option<i16> {
    let mut body = [&[0xff; 4][..], &[0, 0, 0, 1], &string("victim"), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    body.extend(timestamp.to_be_bytes());
    raw.send(&frame(LIST_OFFSETS, 1, &body)).unwrap();
    raw.answer().unwrap().map(|answer| code_at(&answer, "victim"))
}

#[test]
fn who_has_to_decompress_a_bomb_refuses_it_and_stays_small() {
    let scene = Scene::new("");
    for (topic, codec) in [("to-gzip", "gzip"), ("to-lz4", "lz4"), ("to-nothing", "uncompressed")] {
        create_topic(&scene.node.bootstrap(), topic, 1, &[("compression.type", codec)]);
    }
    for (name, codec, bomb) in [("zstd", ZSTD, zstd_bomb()), ("gzip", GZIP, gzip_bomb())] {
        assert!(bomb.len() < MIB - 1000, "{name}: {} bytes, more than a batch may have", bomb.len());
        let batch = batch(codec, &bomb);
        for topic in ["to-gzip", "to-lz4", "to-nothing"] {
            // What is in that codec already may be taken as it is.
            if topic.ends_with(name) {
                continue;
            }
            let answer = produce(&mut scene.connect(), topic, &batch);
            assert_eq!(answer, Some(MESSAGE_TOO_LARGE), "a {name} bomb to {topic}\n{}", scene.node);
            scene.assert_unharmed(&format!("a {name} bomb to {topic}"));
        }
        // Taken as it is, it explodes when its records are looked at to find a time.
        let answer = produce(&mut scene.connect(), "victim", &batch);
        assert_eq!(answer, Some(0), "a {name} bomb\n{}", scene.node);
        let found = offset_for_time(&mut scene.connect(), 1500);
        assert!(found.is_some_and(|code| code != 0), "a search in a {name} bomb: {found:?}\n{}", scene.node);
        scene.assert_unharmed(&format!("a search in a {name} bomb"));
    }
    // Many at a time do not add up.
    let batch = batch(ZSTD, &zstd_bomb());
    std::thread::scope(|scope| {
        let thrown: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    (produce(&mut scene.connect(), "to-lz4", &batch), offset_for_time(&mut scene.connect(), 1500))
                })
            })
            .collect();
        for one in thrown {
            let (produced, found) = one.join().unwrap();
            assert_eq!(produced, Some(MESSAGE_TOO_LARGE), "{}", scene.node);
            assert!(found.is_some_and(|code| code != 0), "{found:?}\n{}", scene.node);
        }
    });
    scene.assert_unharmed_within(MAX_MEMORY_BYTES, "sixteen bombs at a time");
    scene.end();
}
