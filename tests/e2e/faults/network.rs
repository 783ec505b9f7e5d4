//! Clients that misbehave on the wire get an error or are cut off; those beside them go on, and memory stays bounded.

use std::time::{Duration, Instant};

use logmill_tests::load::raw::{Raw, flexible_frame, frame, sized, string};

use super::scene::Scene;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;
const JOIN_GROUP: i16 = 11;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const DELETE_RECORDS: i16 = 21;
const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// The largest frame a node takes by default, in bytes.
const MAX_FRAME_BYTES: i32 = 100 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// What each hostile connection sends, and whether the node may do anything but hang up.
fn hostile_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = vec![0; 100_000];
    random.fill(&mut noise);
    // A positive size, so that what follows is taken for a request.
    let sized_noise = sized(&noise[..4000]);
    let claims = |claim: i32| claim.to_be_bytes().to_vec();
    let nobody = 32_000_i16;
    let mut all = vec![
        ("noise", noise.clone()),
        ("noise of the right size", sized_noise),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise[..500]].concat()),
        ("a size of zero", claims(0)),
        ("a negative size", claims(-1)),
        ("the smallest size", claims(i32::MIN)),
        ("the largest size", claims(i32::MAX)),
        ("a size just over the limit", claims(MAX_FRAME_BYTES + 1)),
        ("a header cut short", sized(&[0, 3, 0])),
        ("a client id that is longer than the frame", sized(&[0, 3, 0, 1, 0, 0, 0, 7, 0x7f, 0xff])),
        ("a client id of negative length", sized(&[0, 3, 0, 1, 0, 0, 0, 7, 0x80, 0])),
        ("a client id that is not UTF-8", sized(&[0, 3, 0, 1, 0, 0, 0, 7, 0, 2, 0xff, 0xfe, 0, 0, 0, 0])),
        ("an API that there is not", frame(nobody, 0, &[])),
        ("a negative API", frame(-1, 0, &[])),
        ("a version that there is not", frame(METADATA, 99, &[])),
        ("a negative version", frame(METADATA, -1, &[])),
        ("a version of Produce that is advertised for old clients only", frame(PRODUCE, 0, &[0; 20])),
    ];
    let huge = i32::MAX.to_be_bytes();
    // Compact arrays carry their count plus one as a varint of up to five bytes.
    let huge_compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for (api, version, before) in [
        (METADATA, 1, vec![]),
        (CREATE_TOPICS, 2, vec![]),
        (OFFSET_FETCH, 1, string("group")),
        (OFFSET_COMMIT, 2, [string("group"), vec![0, 0, 0, 1], string("member"), vec![0; 8]].concat()),
        (LIST_OFFSETS, 1, vec![0xff; 4]),
        (DELETE_RECORDS, 0, vec![]),
        (OFFSET_FOR_LEADER_EPOCH, 2, vec![]),
        (JOIN_GROUP, 0, [string("group"), vec![0, 0, 0x27, 0x10], string(""), string("consumer")].concat()),
        (FETCH, 4, vec![0; 17]),
        (PRODUCE, 3, vec![0xff, 0xff, 0, 1, 0, 0, 0x10, 0]),
    ] {
        all.push(("an array of 2^31-1 elements", frame(api, version, &[&before[..], &huge].concat())));
        let filled = [&before[..], &1_000_000_i32.to_be_bytes(), &noise].concat();
        all.push(("an array of a million elements of noise", frame(api, version, &filled)));
        all.push(("an array of a negative count", frame(api, version, &[&before[..], &[0x80, 0, 0, 0]].concat())));
    }
    for (api, version, before) in [
        (METADATA, 12, &[][..]),
        (FETCH, 12, &[0; 21]),
        (PRODUCE, 9, &[0, 0xff, 0xff, 0, 0, 0x10, 0]),
        (API_VERSIONS, 3, &[]),
        (OFFSET_FETCH, 8, &[]),
    ] {
        all.push(("a compact array of 2^32-2", flexible_frame(api, version, &[before, &huge_compact].concat())));
        all.push(("tagged fields of 2^32-1", frame(api, version, &huge_compact)));
        let endless = vec![0xff; 64];
        all.push(("a varint without an end", flexible_frame(api, version, &[before, &endless].concat())));
    }
    all
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let scene = Scene::new("");
    for (what, bytes) in hostile_bytes() {
        let mut raw = scene.connect();
        raw.send(&bytes).unwrap();
        // Nothing more comes: whoever waits for the rest of a frame finds its end.
        let _ = raw.stream.shutdown(std::net::Shutdown::Write);
        let started = Instant::now();
        while let Some(_answer) = raw.answer().unwrap_or_else(|error| panic!("{what}: {error}\n{}", scene.node)) {
            assert!(started.elapsed() < LIMIT, "{what}: answers without an end");
        }
        assert!(scene.node.serves(), "after {what}: {}", scene.node);
    }
    scene.assert_unharmed("garbage");
    scene.end();
}

#[test]
fn a_version_that_is_not_known_is_answered_where_kafka_answers_it() {
    let scene = Scene::new("");
    // ApiVersions, so that a newer client finds out what it may say: error 35, in version 0.
    for version in [99, i16::MAX] {
        let mut raw = scene.connect();
        let answer = raw.ask(API_VERSIONS, version, &[0; 40]).unwrap().expect("an answer");
        assert_eq!(answer[..2], 35_i16.to_be_bytes());
        // And it may go on on the same connection.
        let answer = raw.ask(API_VERSIONS, 0, &[]).unwrap().expect("an answer");
        assert_eq!(answer[..2], [0, 0]);
    }
    scene.end();
}

#[test]
fn requests_cut_at_any_byte_end_their_connection() {
    let scene = Scene::new("");
    let list_offsets =
        [&[0xff; 4][..], &[0, 0, 0, 1], &string("victim"), &[0, 0, 0, 1, 0, 0, 0, 0], &[0xff; 8]].concat();
    let whole = frame(LIST_OFFSETS, 1, &list_offsets);
    let mut raw = scene.connect();
    raw.send(&whole).unwrap();
    assert!(raw.answer().unwrap().is_some(), "the whole request is answered");
    for end in 0..whole.len() {
        // The connection ends within the frame.
        let mut raw = scene.connect();
        raw.send(&whole[..end]).unwrap();
        raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(raw.answer().unwrap(), None, "cut at {end}");
        // The frame ends within the request.
        if end >= 4 {
            let mut raw = scene.connect();
            raw.send(&sized(&whole[4..end])).unwrap();
            assert_eq!(raw.answer().unwrap(), None, "short by {}", whole.len() - end);
        }
    }
    scene.assert_unharmed("truncated requests");
    scene.end();
}

#[test]
fn a_flood_of_connections_leaves_those_that_are_open_alone() {
    let scene = Scene::new("  max_connections: 100\n");
    let mut open = Vec::new();
    for _ in 0..400 {
        open.extend(Raw::connect(scene.node.port()).ok());
    }
    // Those over the bound are closed at once.
    let mut closed = 0;
    for raw in &mut open {
        raw.send(&frame(API_VERSIONS, 0, &[])).unwrap();
        closed += usize::from(raw.answer().unwrap_or_else(|error| panic!("{error}\n{}", scene.node)).is_none());
    }
    assert!((300..400).contains(&closed), "{closed} of 400 were closed\n{}", scene.node);
    scene.assert_unharmed("a flood");
    drop(open);
    // There is room again.
    let deadline = Instant::now() + LIMIT;
    while !scene.node.serves() {
        assert!(Instant::now() < deadline, "no one gets in any more\n{}", scene.node);
    }
    scene.end();
}

#[test]
fn who_sends_a_byte_now_and_then_is_cut_off() {
    let scene = Scene::new("  frame_timeout: 3s\n");
    let claim = |bytes: i32| {
        let mut raw = scene.connect();
        raw.send(&bytes.to_be_bytes()).unwrap();
        raw
    };
    let mut slow: Vec<_> = (0..20).map(|_| claim(1000)).collect();
    // A large request has more time. As long as these last, they are in nobody's way.
    let _large: Vec<_> = (0..20).map(|_| claim(MAX_FRAME_BYTES)).collect();
    scene.assert_unharmed("large claims");
    let deadline = Instant::now() + LIMIT;
    while !slow.is_empty() {
        assert!(Instant::now() < deadline, "{} go on and on\n{}", slow.len(), scene.node);
        slow.retain_mut(|raw| {
            raw.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let _ = raw.send(&[0]);
            // A timeout is an error: it is still open.
            !matches!(raw.answer(), Ok(None))
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    scene.assert_unharmed("slow-loris");
    scene.end();
}

#[test]
fn a_huge_frame_is_read_and_refused_while_others_are_served() {
    let scene = Scene::new("");
    // A Metadata request for as many topics as fit, all of noise: large, and malformed only at its end.
    let names: Vec<u8> = (0..200_000).flat_map(|number| string(&format!("no-such-topic-{number}"))).collect();
    let body = [&200_001_i32.to_be_bytes()[..], &names].concat();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (mut raw, request) = (scene.connect(), frame(METADATA, 1, &body));
            std::thread::spawn(move || {
                raw.send(&request).unwrap();
                raw.answer().unwrap()
            })
        })
        .collect();
    for sender in senders {
        assert_eq!(sender.join().unwrap(), None, "{}", scene.node);
    }
    scene.assert_unharmed("huge frames");
    scene.end();
}
