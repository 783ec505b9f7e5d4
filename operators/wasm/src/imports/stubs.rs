//! The functions of WASI 0.2 that can be linked and do nothing: files, sockets, terminals and the like, by name.
//!
//! A guest brings the types of what it imports along, so a function is only what it says if its name is known; of the types
//! that it gives to a known one, those of its arguments matter: see `refuse` in `wasi.rs`.

use wasmtime::component::types::Type;

use super::names::Interface;

/// The most fields of a record among the arguments: a date has two.
const MAX_FIELDS: usize = 16;

/// Whether WASI 0.2 has a function of this name that does nothing here.
pub(super) fn is_known(interface: &Interface<'_>, item: &str) -> bool {
    let (resource, function) = match item.strip_prefix("[method]") {
        Some(method) => method.split_once('.').unwrap_or((method, "")),
        None => ("", item),
    };
    let same = |(package, name, of, functions): &(&str, &str, &str, &[&str])| {
        (*package, *name, *of) == (interface.package, interface.name, resource) && functions.contains(&function)
    };
    STUBS.iter().any(same)
}

/// Whether the values of an argument's type take little, whatever the guest says. A list may have as many elements as the guest
/// has memory, and each of them is many times as large here; so may the names of an element's flags.
pub(super) fn is_small(ty: &Type) -> bool {
    match ty {
        Type::Record(record) => {
            record.fields().len() <= MAX_FIELDS && record.fields().all(|field| is_scalar(&field.ty))
        }
        other => is_scalar(other),
    }
}

fn is_scalar(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Bool
            | Type::S8
            | Type::U8
            | Type::S16
            | Type::U16
            | Type::S32
            | Type::U32
            | Type::S64
            | Type::U64
            | Type::Float32
            | Type::Float64
            | Type::Char
            | Type::String
            | Type::Enum(_)
            | Type::Own(_)
            | Type::Borrow(_)
    )
}

/// Package, interface, resource if they are its methods, and functions: those of WASI 0.2.12, which has all of those of the
/// versions before it.
const STUBS: &[(&str, &str, &str, &[&str])] = &[
    ("wasi:cli", "environment", "", &["get-environment", "get-arguments", "initial-cwd"]),
    ("wasi:cli", "terminal-stdin", "", &["get-terminal-stdin"]),
    ("wasi:cli", "terminal-stdout", "", &["get-terminal-stdout"]),
    ("wasi:cli", "terminal-stderr", "", &["get-terminal-stderr"]),
    ("wasi:clocks", "timezone", "", &["display", "utc-offset"]),
    ("wasi:filesystem", "preopens", "", &["get-directories"]),
    ("wasi:filesystem", "types", "", &["filesystem-error-code"]),
    (
        "wasi:filesystem",
        "types",
        "descriptor",
        &[
            "read-via-stream",
            "write-via-stream",
            "append-via-stream",
            "advise",
            "sync-data",
            "get-flags",
            "get-type",
            "set-size",
            "set-times",
            "read",
            "write",
            "read-directory",
            "sync",
            "create-directory-at",
            "stat",
            "stat-at",
            "set-times-at",
            "link-at",
            "open-at",
            "readlink-at",
            "remove-directory-at",
            "rename-at",
            "symlink-at",
            "unlink-file-at",
            "is-same-object",
            "metadata-hash",
            "metadata-hash-at",
        ],
    ),
    ("wasi:filesystem", "types", "directory-entry-stream", &["read-directory-entry"]),
    ("wasi:io", "error", "error", &["to-debug-string"]),
    ("wasi:sockets", "instance-network", "", &["instance-network"]),
    ("wasi:sockets", "network", "", &["network-error-code"]),
    ("wasi:sockets", "ip-name-lookup", "", &["resolve-addresses"]),
    ("wasi:sockets", "ip-name-lookup", "resolve-address-stream", &["resolve-next-address", "subscribe"]),
    ("wasi:sockets", "tcp-create-socket", "", &["create-tcp-socket"]),
    (
        "wasi:sockets",
        "tcp",
        "tcp-socket",
        &[
            "start-bind",
            "finish-bind",
            "start-connect",
            "finish-connect",
            "start-listen",
            "finish-listen",
            "accept",
            "local-address",
            "remote-address",
            "is-listening",
            "address-family",
            "set-listen-backlog-size",
            "keep-alive-enabled",
            "set-keep-alive-enabled",
            "keep-alive-idle-time",
            "set-keep-alive-idle-time",
            "keep-alive-interval",
            "set-keep-alive-interval",
            "keep-alive-count",
            "set-keep-alive-count",
            "hop-limit",
            "set-hop-limit",
            "receive-buffer-size",
            "set-receive-buffer-size",
            "send-buffer-size",
            "set-send-buffer-size",
            "subscribe",
            "shutdown",
        ],
    ),
    ("wasi:sockets", "udp-create-socket", "", &["create-udp-socket"]),
    (
        "wasi:sockets",
        "udp",
        "udp-socket",
        &[
            "start-bind",
            "finish-bind",
            "stream",
            "local-address",
            "remote-address",
            "address-family",
            "unicast-hop-limit",
            "set-unicast-hop-limit",
            "receive-buffer-size",
            "set-receive-buffer-size",
            "send-buffer-size",
            "set-send-buffer-size",
            "subscribe",
        ],
    ),
    ("wasi:sockets", "udp", "incoming-datagram-stream", &["receive", "subscribe"]),
    ("wasi:sockets", "udp", "outgoing-datagram-stream", &["check-send", "send", "subscribe"]),
];
