//! What is loaded, and in which words the rest is turned away.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use logmill_wasm::{Host, MAX_MODULE_BYTES};

use crate::build::{BASE, HOST_IMPORTS, LIMITS, batch, component, host, identity, operator_text, refuse, start, typed};

#[test]
fn a_core_module_with_component_types_is_as_good_as_a_component() {
    let text = operator_text("", "", "(call $ok (local.get $rows) (local.get $length))");
    let (core, component) = (typed("operator", "", &text), component("operator", "", &text));
    let (core, component) = (host().load(&core).unwrap(), host().load(&component).unwrap());
    assert_eq!(core.role(), component.role());
    assert_ne!(core.digest(), component.digest(), "the digest is that of the bytes given");
    for guest in [core, component] {
        assert_eq!(batch(&mut start(&guest, &LIMITS).0, b"rows").unwrap()[0].1, b"rows");
    }
}

#[test]
fn the_digest_is_sha_256() {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "logmill_alloc") (param i32) (result i32) unreachable)
        (func (export "logmill_transform") (param i32 i32) (result i64) unreachable))"#,
    )
    .unwrap();
    let digest = host().load(&module).unwrap().digest().to_owned();
    assert_eq!(digest.len(), 64);
    assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(host().load(&module).unwrap().digest(), digest);
}

#[test]
fn what_is_no_module_is_told_what_it_is() {
    let check = |bytes: &[u8], expected: &str| {
        let error = refuse(bytes);
        assert!(error.contains(expected), "{error}");
    };
    check(b"", "the file is empty");
    check(b"\0as", "cut off after 3 bytes");
    check(b"  (module)", "this is the text format");
    check(b"(component)", "this is the text format");
    check(b";; a guest\n(module)", "this is the text format");
    check(b"\x7fELF\x02", "a native program");
    check(b"!<arch>\n", "a static library");
    check(b"{\"wasm\": 1}", "it does not begin as one");
    check(b"\0asm\x09\0\0\0", "not a WebAssembly module");
    let module = typed("operator", "", &operator_text("", "", "(i32.const 0)"));
    check(&module[..module.len() / 2], "cut off");
    let component = identity();
    check(&component[..component.len() / 2], "unexpected end");
}

#[test]
fn a_module_that_is_too_large_is_not_looked_at() {
    let zeros = vec![0; usize::try_from(MAX_MODULE_BYTES).unwrap() + 1];
    assert!(refuse(&zeros).contains("more than the 268435456 bytes that are allowed"));
}

#[test]
fn other_versions_and_parts_of_ours_are_named() {
    let check = |wit: &str, text: &str, expected: &str| {
        let error = refuse(&component("guest", wit, text));
        assert!(error.contains(expected), "{expected}: {error}");
    };
    check(
        "package test:guest; world guest { export run: func(); }",
        r#"(module (func (export "run")))"#,
        "it exports `run`; an operator exports `logmill:operator/batch@0.1.0`",
    );
    check(
        "package test:guest; world guest { export acme:db/query; }
         package acme:db { interface query { run: func(); } }",
        r#"(module (func (export "acme:db/query#run")))"#,
        "it exports `acme:db/query`;",
    );
    let newer = "package test:guest; world guest { export logmill:operator/batch@0.2.0; }
         package logmill:operator@0.2.0 { interface batch { on-batch: func(); } }";
    check(
        newer,
        r#"(module (func (export "logmill:operator/batch@0.2.0#on-batch")))"#,
        "this engine knows version 0.1",
    );
    let unversioned = "package test:guest; world guest { export logmill:other/batch; }
         package logmill:other { interface batch { on-batch: func(); } }";
    check(unversioned, r#"(module (func (export "logmill:other/batch#on-batch")))"#, "without a version");
    let half = "package test:guest; world guest { export logmill:transform/describe@0.1.0; }";
    let text = format!(
        r#"(module {BASE}
        (func (export "logmill:transform/describe@0.1.0#outputs") (param i32 i32) (result i32) unreachable))"#
    );
    check(half, &text, "neither `record` nor `packed` beside it");
}

#[test]
fn two_patches_of_one_interface_leave_open_which_is_meant() {
    let wit = "package test:guest;
        world guest { export logmill:operator/batch@0.1.1; export logmill:operator/batch@0.1.2; }
        package logmill:operator@0.1.1 { interface batch { on-batch: func(); } }
        package logmill:operator@0.1.2 { interface batch { on-batch: func(); } }";
    let text = r#"(module (func (export "logmill:operator/batch@0.1.1#on-batch"))
        (func (export "logmill:operator/batch@0.1.2#on-batch")))"#;
    let error = refuse(&component("guest", wit, text));
    let expected = "it exports both `logmill:operator/batch@0.1.1` and `logmill:operator/batch@0.1.2`";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_later_patch_of_our_packages_is_taken() {
    let wit = "package test:guest;
        world guest { import logmill:operator/host@0.1.7; export logmill:function/scalar@0.1.7; }
        package logmill:operator@0.1.7 { interface host { now: func() -> s64; } }
        package logmill:function@0.1.7 { interface scalar {
            record signature { name: string, arguments: list<u8>, returns: list<u8>, deterministic: bool }
            record failure { message: string, row: option<u32> }
            functions: func(config: string) -> result<list<signature>, string>;
            invoke: func(name: string, arguments: list<u8>) -> result<list<u8>, failure>;
            more: func();
        } }";
    let text = format!(
        r#"(module (import "logmill:operator/host@0.1.7" "now" (func (result i64))) {BASE}
        (func (export "logmill:function/scalar@0.1.7#functions") (param i32 i32) (result i32) unreachable)
        (func (export "logmill:function/scalar@0.1.7#invoke") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "logmill:function/scalar@0.1.7#more")))"#
    );
    let guest = host().load(&component("guest", wit, &text)).unwrap();
    assert_eq!(guest.role(), logmill_wasm::Role::Function);
}

#[test]
fn functions_that_are_missing_or_of_other_types_are_named() {
    let scalar = |functions: &str, text: &str| {
        let wit = format!(
            "package test:guest; world guest {{ export logmill:function/scalar@0.1.0; }}
             package logmill:function@0.1.1 {{ interface scalar {{ {functions} }} }}"
        );
        let wit = wit.replace("export logmill:function/scalar@0.1.0", "export logmill:function/scalar@0.1.1");
        refuse(&component("guest", &wit, &format!("(module {BASE} {text})")))
    };
    let error = scalar("invoke: func();", r#"(func (export "logmill:function/scalar@0.1.1#invoke"))"#);
    assert!(error.contains("`logmill:function/scalar` has no function `functions`"), "{error}");
    let error = scalar(
        "functions: func(config: u32);",
        r#"(func (export "logmill:function/scalar@0.1.1#functions") (param i32))"#,
    );
    assert!(error.contains("`functions` of `logmill:function/scalar@0.1.1` has other types than it should"), "{error}");
}

#[test]
fn imports_that_components_do_not_get_are_all_named() {
    let wit = "package test:guest;
        world guest {
            import acme:db/query@1.0.0; import wasi:http/types@0.2.3; import wasi:clocks/wall-clock@0.3.0; import shell: func();
            include logmill:operator/operator@0.1.0;
        }
        package acme:db@1.0.0 { interface query { run: func(); } }
        package wasi:http@0.2.3 { interface types { run: func(); } }
        package wasi:clocks@0.3.0 { interface wall-clock { run: func(); } }";
    let imports = r#"(import "acme:db/query@1.0.0" "run" (func))
        (import "wasi:http/types@0.2.3" "run" (func)) (import "wasi:clocks/wall-clock@0.3.0" "run" (func))
        (import "$root" "shell" (func))"#;
    let error = refuse(&component("guest", wit, &operator_text(imports, "", "(i32.const 0)")));
    for expected in [
        "`acme:db/query@1.0.0`",
        "`wasi:http/types@0.2.3` (guests have no network",
        "`wasi:clocks/wall-clock@0.3.0` (guests get WASI 0.2 only)",
        "`shell`",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn features_that_guests_do_not_need_are_off() {
    let check = |text: &str| {
        let error = refuse(&wat::parse_str(text).unwrap());
        assert!(error.starts_with("the module is not valid"), "{text}: {error}");
    };
    check(r#"(module (memory (export "memory") 1 1 shared))"#);
    check(r#"(module (memory (export "memory") i64 1))"#);
    check(r#"(module (memory 1) (memory 1))"#);
}

/// The compiled code that is kept, by its file: one that is written anew is another.
fn kept(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.path(), entry.metadata().unwrap().ino())).collect()
}

#[test]
fn compiled_code_is_kept_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("not/yet/there");
    let module = identity();
    let first = Host::new(Some(&cache)).unwrap().load(&module).unwrap();
    let files = kept(&cache);
    assert!(!files.is_empty());
    let second = Host::new(Some(&cache)).unwrap().load(&module).unwrap();
    assert_eq!(kept(&cache), files, "nothing was compiled anew");
    for guest in [first, second] {
        assert_eq!(batch(&mut start(&guest, &LIMITS).0, b"rows").unwrap()[0].1, b"rows");
    }
    let other = component("operator", "", &operator_text(HOST_IMPORTS, "", "(call $refuse)"));
    Host::new(Some(&cache)).unwrap().load(&other).unwrap();
    assert!(kept(&cache).len() > files.len(), "another module is another entry");
}

#[test]
fn damaged_code_is_compiled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let module = identity();
    let works = || {
        let guest = Host::new(Some(dir.path())).unwrap().load(&module).unwrap();
        assert_eq!(batch(&mut start(&guest, &LIMITS).0, b"rows").unwrap()[0].1, b"rows");
    };
    works();
    let files = kept(dir.path());
    let (path, _) = files.first_key_value().unwrap();
    let whole = std::fs::read(path).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    for damaged in [&whole[..middle], &flipped, &[]] {
        std::fs::write(path, damaged).unwrap();
        works();
        assert_eq!(std::fs::read(path).unwrap(), whole, "it is kept again");
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, b"").unwrap();
    let guest = Host::new(Some(&file)).unwrap().load(&identity()).unwrap();
    assert_eq!(batch(&mut start(&guest, &LIMITS).0, b"rows").unwrap()[0].1, b"rows");
}
