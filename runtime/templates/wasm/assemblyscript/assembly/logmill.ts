// Records, in and out: the form of "Records, packed", which plain modules exchange with Logmill. This file need not change.

/** The timestamp of a record that has none. */
export const NO_TIMESTAMP: i64 = i64.MIN_VALUE;

/** The length that stands for null. */
const NULL: u32 = 0xffff_ffff;

export class Header {
  constructor(public name: string, public value: ArrayBuffer | null) {}
}

/** A record. */
export class Message {
  /** Microseconds since the Unix epoch, UTC. */
  timestamp: i64 = NO_TIMESTAMP;
  key: ArrayBuffer | null = null;
  value: ArrayBuffer | null = null;
  headers: Header[] = [];

  /** The value as text; empty if it is null. */
  text(): string {
    const value = this.value;
    return value === null ? "" : String.UTF8.decode(value);
  }

  /** The same record with another value. */
  withText(text: string): Message {
    const message = new Message();
    message.timestamp = this.timestamp;
    message.key = this.key;
    message.headers = this.headers;
    message.value = String.UTF8.encode(text);
    return message;
  }
}

/** An output and what its records hold. */
export class Output {
  private constructor(private name: string, private content: string) {}

  /** Text, in one column `value` of type string. */
  static text(name: string): Output {
    return new Output(name, '"text":true');
  }

  /** Bytes, in one column `value` of type binary. */
  static bytes(name: string): Output {
    return new Output(name, '"bytes":true');
  }

  /** JSON objects with these columns: names, each followed by a type such as `int64`, `string` or `timestamp`. */
  static json(name: string, columns: string[]): Output {
    let content = '"json":{';
    for (let i = 0; i + 1 < columns.length; i += 2) {
      content += (i > 0 ? "," : "") + quote(columns[i]) + ":" + quote(columns[i + 1]);
    }
    return new Output(name, content + "}");
  }

  toString(): string {
    return '{"name":' + quote(this.name) + "," + this.content + "}";
  }
}

/** A text as JSON writes it. */
export function quote(text: string): string {
  let quoted = '"';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) quoted += "\\" + text.charAt(i);
    else if (c < 0x20) quoted += "\\u00" + (c < 0x10 ? "0" : "1") + "0123456789abcdef".charAt(c & 15);
    else quoted += text.charAt(i);
  }
  return quoted + '"';
}

export enum Level {
  Debug = 0,
  Info = 1,
  Warn = 2,
  Error = 3,
}

@external("logmill", "log")
declare function hostLog(level: i32, message: usize, length: i32): void;

@external("logmill", "now")
declare function hostNow(): i64;

/** Writes a line to the pipeline's log. */
export function log(level: Level, text: string): void {
  const bytes = String.UTF8.encode(text);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/** The engine's clock: microseconds since the Unix epoch, UTC. */
export function now(): i64 {
  return hostNow();
}

// What Logmill writes into, and what it reads from: each the same buffer at every call, grown as need be.
let input = new ArrayBuffer(1 << 16);
let output = new ArrayBuffer(1 << 16);
let end: i32 = 0;

// The record at hand, and where its entries begin.
let current: u32 = 0;
let entries: u32 = 0;
let entriesBefore: u32 = 0;
let endBefore: i32 = 0;
let failed = false;

/** Puts a record out, to the first output or to that of a number. */
export function emit(message: Message, to: u16 = 0): void {
  if (failed) return;
  entries++;
  putU32(current);
  putU8(0);
  putU16(to);
  putU32(<u32>message.timestamp);
  putU32(<u32>(message.timestamp >> 32));
  putBytes(message.key);
  putBytes(message.value);
  putU32(message.headers.length);
  for (let i = 0; i < message.headers.length; i++) {
    putBytes(String.UTF8.encode(message.headers[i].name));
    putBytes(message.headers[i].value);
  }
}

/** Sets the record at hand aside: nothing is emitted for it, and the pipeline's `on_error` decides what becomes of it. */
export function fail(reason: string): void {
  end = endBefore;
  entries = entriesBefore + 1;
  failed = true;
  putU32(current);
  putU8(1);
  putBytes(String.UTF8.encode(reason));
}

export function alloc(size: i32): usize {
  if (size > input.byteLength) input = new ArrayBuffer(max(size, 2 * input.byteLength));
  return changetype<usize>(input);
}

export function describe(outputs: Output[]): i64 {
  end = 0;
  putU8(0);
  const json = String.UTF8.encode("[" + outputs.map<string>((output) => output.toString()).join(",") + "]");
  room(json.byteLength);
  memory.copy(changetype<usize>(output) + end, changetype<usize>(json), json.byteLength);
  end += json.byteLength;
  return result();
}

export function run(at: usize, length: i32, transform: (message: Message) => void): i64 {
  from = at;
  end = 0;
  entries = 0;
  putU8(0);
  putU32(0);
  const messages = takeU32();
  for (current = 0; current < messages; current++) {
    entriesBefore = entries;
    endBefore = end;
    failed = false;
    transform(takeMessage());
  }
  store<u32>(changetype<usize>(output) + 1, entries);
  return result();
}

function result(): i64 {
  return ((<i64>changetype<usize>(output)) << 32) | end;
}

let from: usize = 0;

function takeU32(): u32 {
  const n = load<u32>(from);
  from += 4;
  return n;
}

function takeBytes(): ArrayBuffer | null {
  const length = takeU32();
  if (length == NULL) return null;
  const bytes = new ArrayBuffer(length);
  memory.copy(changetype<usize>(bytes), from, length);
  from += length;
  return bytes;
}

function takeMessage(): Message {
  const message = new Message();
  message.timestamp = load<i64>(from);
  from += 8;
  message.key = takeBytes();
  message.value = takeBytes();
  const headers = takeU32();
  for (let i: u32 = 0; i < headers; i++) {
    const name = takeBytes();
    message.headers.push(new Header(name === null ? "" : String.UTF8.decode(name), takeBytes()));
  }
  return message;
}

function room(bytes: i32): void {
  if (end + bytes <= output.byteLength) return;
  const larger = new ArrayBuffer(max(end + bytes, 2 * output.byteLength));
  memory.copy(changetype<usize>(larger), changetype<usize>(output), end);
  output = larger;
}

function putU8(n: u8): void {
  room(1);
  store<u8>(changetype<usize>(output) + end, n);
  end += 1;
}

function putU16(n: u16): void {
  room(2);
  store<u16>(changetype<usize>(output) + end, n);
  end += 2;
}

function putU32(n: u32): void {
  room(4);
  store<u32>(changetype<usize>(output) + end, n);
  end += 4;
}

function putBytes(bytes: ArrayBuffer | null): void {
  if (bytes === null) return putU32(NULL);
  putU32(bytes.byteLength);
  room(bytes.byteLength);
  memory.copy(changetype<usize>(output) + end, changetype<usize>(bytes), bytes.byteLength);
  end += bytes.byteLength;
}
