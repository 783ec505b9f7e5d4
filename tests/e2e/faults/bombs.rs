//! Batches that are small on the wire and huge when decompressed: whoever has to decompress them stays small.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress};
use logmill_tests::load::batch::{batch, code_at, produce_frame, produced};
use logmill_tests::load::raw::{Raw, frame, string};
use logmill_tests::load::run::create_topic;

use super::scene::Scene;

const LIST_OFFSETS: i16 = 2;
const GZIP: i16 = 1;
const ZSTD: i16 = 4;
/// What the value of the one record of a bomb is long, in bytes.
const VALUE_BYTES: u64 = 1 << 30;
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
        assert!(bomb.len() > MIB / 64 && bomb.len() < 3 * MIB / 2, "{name}: {} bytes", bomb.len());
        let batch = batch(codec, &bomb);
        for topic in ["to-gzip", "to-lz4", "to-nothing"] {
            // What is in that codec already may be taken as it is.
            if topic.ends_with(name) {
                continue;
            }
            let answer = produce(&mut scene.connect(), topic, &batch);
            assert!(answer.is_none_or(|code| code != 0), "{name} bomb to {topic}: {answer:?}\n{}", scene.node);
            scene.assert_unharmed(&format!("a {name} bomb to {topic}"));
        }
        // Taken as it is, it explodes when its records are looked at to find a time.
        let mut raw = scene.connect();
        let answer = produce(&mut raw, "victim", &batch);
        let found = offset_for_time(&mut scene.connect(), 1500);
        scene.assert_unharmed(&format!("a search in a {name} bomb, produced: {answer:?}, found: {found:?}"));
    }
    scene.end();
}
