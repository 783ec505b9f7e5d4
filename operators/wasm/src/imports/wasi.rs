//! A virtual WASI 0.2 for guests whose language's runtime cannot do without: it can be linked, and does no harm.
//!
//! Nothing of it waits, reads or reaches anything: clocks show the moment of the call, randomness comes from its seed, stdin is
//! at its end, stdout and stderr go to the log, everything one could wait for is ready. There are no files, no environment,
//! no arguments; sockets can be named but not had. A replay of a call finds the same world.

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{ComponentType, LinkerInstance, Lower, Resource, ResourceAny, ResourceType, Val, WasmList};
use wasmtime::{AsContextMut, bail, format_err};

use super::Context;
use super::names::Interface;
use super::stubs;
use crate::log::Stream;
use crate::state::State;

/// What `check-write` allows at once.
const WRITE_BYTES: u64 = 64 * 1024;
/// What `blocking-write-and-flush` takes at once, as WASI has it.
const FLUSH_BYTES: usize = 4096;
/// What `poll` takes at once.
const MAX_POLLABLES: usize = 10_000;
/// The most random bytes of one call.
const MAX_RANDOM_BYTES: u64 = 1024 * 1024;
/// Randomness for hash tables is the same in every instance: what they hold comes out in the same order after a restart.
const HASH_SEED: (u64, u64) = (0x6c6f_676d_696c_6c00, 0x7265_7072_6f64_7563);

struct Pollable;
struct InputStream;
struct OutputStream;
struct IoError;
/// Resources that can be named but never had: descriptors, sockets, terminals.
///
/// Nothing here makes one, whatever type a guest gives to what it imports: a method of such a resource fails at its first
/// argument, before the rest of them are read.
struct Refused;
/// The network, which there is, and which nothing can be done with.
struct Network;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code)]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Linked<'a, 'l> = &'a mut LinkerInstance<'l, State>;
type Streamed<T> = wasmtime::Result<(Result<T, StreamError>,)>;

/// Why an interface is not to be had; nothing if it is.
pub(super) fn refusal(interface: &Interface<'_>) -> Option<&'static str> {
    if !matches!(interface.version, Some((0, 2, _))) {
        return Some("guests get WASI 0.2 only");
    }
    match interface.package {
        "wasi:cli" | "wasi:clocks" | "wasi:filesystem" | "wasi:io" | "wasi:random" | "wasi:sockets" => None,
        "wasi:http" => Some("guests have no network; with componentize-js, disable its feature `http`"),
        _ => Some("guests get no authority over anything outside them"),
    }
}

/// Defines an item of an interface that is not refused.
pub(super) fn link(
    linked: &mut LinkerInstance<'_, State>,
    interface: &Interface<'_>,
    item: &str,
    ty: &ComponentItem,
) -> wasmtime::Result<()> {
    match ty {
        ComponentItem::Resource(_) => linked.resource(item, resource_type(item), |_, _| Ok(())),
        ComponentItem::ComponentFunc(ty) => match (interface.package, interface.name) {
            ("wasi:io", "streams") => streams(linked, interface, item, ty),
            ("wasi:io", "poll") => poll(linked, interface, item, ty),
            ("wasi:clocks", _) => clocks(linked, interface, item, ty),
            ("wasi:random", _) => random(linked, interface, item, ty),
            ("wasi:cli", _) => cli(linked, interface, item, ty),
            _ => refuse(linked, interface, item, ty),
        },
        _ => Ok(()),
    }
}

/// Whether nothing of this resource can be had.
fn is_refused(resource: &str) -> bool {
    resource_type(resource) == ResourceType::host::<Refused>()
}

fn resource_type(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "error" => ResourceType::host::<IoError>(),
        "network" => ResourceType::host::<Network>(),
        _ => ResourceType::host::<Refused>(),
    }
}

fn streams(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    type Out = Resource<OutputStream>;
    match item {
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => linked
            .func_wrap(item, |_: Context<'_>, _: (Resource<InputStream>, u64)| -> Streamed<Vec<u8>> {
                Ok((Err(StreamError::Closed),))
            }),
        "[method]input-stream.skip" | "[method]input-stream.blocking-skip" => linked
            .func_wrap(item, |_: Context<'_>, _: (Resource<InputStream>, u64)| -> Streamed<u64> {
                Ok((Err(StreamError::Closed),))
            }),
        "[method]input-stream.subscribe" => {
            linked.func_wrap(item, |_: Context<'_>, _: (Resource<InputStream>,)| Ok((ready(),)))
        }
        "[method]output-stream.subscribe" => linked.func_wrap(item, |_: Context<'_>, _: (Out,)| Ok((ready(),))),
        "[method]output-stream.check-write" => {
            linked.func_wrap(item, |_: Context<'_>, _: (Out,)| -> Streamed<u64> { Ok((Ok(WRITE_BYTES),)) })
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            let most = if item == "[method]output-stream.write" { WRITE_BYTES as usize } else { FLUSH_BYTES };
            linked.func_wrap(item, move |mut context: Context<'_>, (out, bytes): (Out, WasmList<u8>)| -> Streamed<()> {
                if bytes.len() > most {
                    bail!("it wrote {} bytes at once, {most} are allowed", bytes.len());
                }
                let stream = if out.rep() == Stream::Stderr as u32 { Stream::Stderr } else { Stream::Stdout };
                let bytes = bytes.as_le_slice(&context).to_vec();
                context.data_mut().log.write(stream, &bytes);
                Ok((Ok(()),))
            })
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            linked.func_wrap(item, |_: Context<'_>, _: (Out,)| -> Streamed<()> { Ok((Ok(()),)) })
        }
        "[method]output-stream.write-zeroes" | "[method]output-stream.blocking-write-zeroes-and-flush" => {
            linked.func_wrap(item, |_: Context<'_>, _: (Out, u64)| -> Streamed<()> { Ok((Ok(()),)) })
        }
        "[method]output-stream.splice" | "[method]output-stream.blocking-splice" => linked
            .func_wrap(item, |_: Context<'_>, _: (Out, Resource<InputStream>, u64)| -> Streamed<u64> {
                Ok((Err(StreamError::Closed),))
            }),
        _ => refuse(linked, interface, item, ty),
    }
}

fn ready() -> Resource<Pollable> {
    Resource::new_own(0)
}

fn poll(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    match item {
        "poll" => linked.func_wrap(item, |_: Context<'_>, (pollables,): (WasmList<Resource<Pollable>>,)| {
            if pollables.len() == 0 {
                bail!("`poll` was called with nothing to wait for");
            }
            if pollables.len() > MAX_POLLABLES {
                bail!("`poll` was called for {} pollables, {MAX_POLLABLES} are allowed", pollables.len());
            }
            Ok(((0..).take(pollables.len()).collect::<Vec<u32>>(),))
        }),
        "[method]pollable.ready" => linked.func_wrap(item, |_: Context<'_>, _: (Resource<Pollable>,)| Ok((true,))),
        "[method]pollable.block" => linked.func_wrap(item, |_: Context<'_>, _: (Resource<Pollable>,)| Ok(())),
        _ => refuse(linked, interface, item, ty),
    }
}

fn clocks(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    match (interface.name, item) {
        ("wall-clock", "now") => linked.func_wrap(item, |context: Context<'_>, (): ()| {
            let now_us = u64::try_from(context.data().moment.now_us).unwrap_or(0);
            let nanoseconds = u32::try_from(now_us % 1_000_000).unwrap_or(0) * 1_000;
            Ok((Datetime { seconds: now_us / 1_000_000, nanoseconds },))
        }),
        ("wall-clock", "resolution") => {
            linked.func_wrap(item, |_: Context<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000 },)))
        }
        ("monotonic-clock", "now") => linked.func_wrap(item, |context: Context<'_>, (): ()| {
            Ok((u64::try_from(context.data().moment.now_us).unwrap_or(0).saturating_mul(1_000),))
        }),
        ("monotonic-clock", "resolution") => linked.func_wrap(item, |_: Context<'_>, (): ()| Ok((1_000u64,))),
        ("monotonic-clock", "subscribe-instant" | "subscribe-duration") => {
            linked.func_wrap(item, |_: Context<'_>, _: (u64,)| Ok((ready(),)))
        }
        _ => refuse(linked, interface, item, ty),
    }
}

fn random(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    match item {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            linked.func_wrap(item, |mut context: Context<'_>, (length,): (u64,)| {
                if length > MAX_RANDOM_BYTES {
                    bail!("{length} random bytes were asked for at once, {MAX_RANDOM_BYTES} are allowed");
                }
                let mut bytes = vec![0; usize::try_from(length)?];
                context.data_mut().random_bytes(&mut bytes);
                Ok((bytes,))
            })
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            linked.func_wrap(item, |mut context: Context<'_>, (): ()| Ok((context.data_mut().random_u64(),)))
        }
        "insecure-seed" => linked.func_wrap(item, |_: Context<'_>, (): ()| Ok((HASH_SEED,))),
        _ => refuse(linked, interface, item, ty),
    }
}

fn cli(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    match item {
        "get-stdin" => linked.func_wrap(item, |_: Context<'_>, (): ()| Ok((Resource::<InputStream>::new_own(0),))),
        "get-stdout" => linked
            .func_wrap(item, |_: Context<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(Stream::Stdout as u32),))),
        "get-stderr" => linked
            .func_wrap(item, |_: Context<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(Stream::Stderr as u32),))),
        "exit" => linked.func_wrap(item, |_: Context<'_>, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
            Err(format_err!("it called exit, with {}", if status.is_ok() { "success" } else { "failure" }))
        }),
        "exit-with-code" => linked.func_wrap(item, |_: Context<'_>, (code,): (u8,)| -> wasmtime::Result<()> {
            Err(format_err!("it called exit, with code {code}"))
        }),
        _ => refuse(linked, interface, item, ty),
    }
}

/// Defines a function that gives nothing: no list's elements, no value of an option, an error that says so; and that fails
/// the call where its type leaves room for none of these.
///
/// Its type is what the guest says it is, and its arguments are read before it is called: as values that take many times what
/// they take in the guest. So only functions of WASI are defined, and only with arguments whose size their types bound.
fn refuse(linked: Linked<'_, '_>, interface: &Interface<'_>, item: &str, ty: &ComponentFunc) -> wasmtime::Result<()> {
    if !stubs::is_known(interface, item) {
        bail!("WASI 0.2 has no such function");
    }
    // Methods begin with their resource.
    let resource = item.strip_prefix("[method]").and_then(|method| Some(method.split_once('.')?.0));
    if !resource.is_some_and(is_refused) && !ty.params().all(|(_, ty)| stubs::is_small(&ty)) {
        bail!("its arguments are not those that WASI 0.2 gives it");
    }
    let name = item.to_owned();
    linked.func_new(item, move |mut context, ty, _, results| {
        for (slot, ty) in results.iter_mut().zip(ty.results()) {
            *slot =
                nothing(&mut context, &ty).ok_or_else(|| format_err!("it called `{name}`, which guests do not get"))?;
        }
        Ok(())
    })
}

fn nothing(context: &mut Context<'_>, ty: &Type) -> Option<Val> {
    match ty {
        Type::List(_) => Some(Val::List(Vec::new())),
        Type::Option(_) => Some(Val::Option(None)),
        Type::Own(resource) if *resource == ResourceType::host::<Network>() => {
            let made = Resource::<Network>::new_own(0);
            ResourceAny::try_from_resource(made, context.as_context_mut()).ok().map(Val::Resource)
        }
        Type::Result(result) => match result.err() {
            Some(Type::Enum(codes)) => {
                let wanted = ["access-denied", "not-permitted", "not-supported", "unsupported"];
                let code = wanted.iter().find(|wanted| codes.names().any(|name| name == **wanted))?;
                Some(Val::Result(Err(Some(Box::new(Val::Enum((*code).to_owned()))))))
            }
            None => Some(Val::Result(Err(None))),
            Some(_) => None,
        },
        _ => None,
    }
}
