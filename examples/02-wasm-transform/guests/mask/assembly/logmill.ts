// What a transform exchanges with Logmill: records, packed, in two buffers that are used again and again, so that there is
// nothing to collect. All numbers are little-endian, and nothing is aligned.
//
//   input    u32 messages, message each
//   message  i64 timestamp, bytes key, bytes value, u32 headers, (bytes name, bytes value) each
//   result   u8 0, u32 entries, entry each                    or u8 1, text of an error
//   entry    u32 index of the message, u8 0, u16 output, message       or u32 index, u8 1, text of why it is set aside
//   bytes    u32 length (0xffff_ffff: null), bytes

@external("logmill", "log")
declare function host_log(level: i32, message: usize, length: i32): void;

const NULL: u32 = 0xffffffff;

let input: usize = 0;
let inputRoom: usize = 0;
let output: usize = 0;
let outputRoom: usize = 0;
let outputEnd: usize = 0;
let entries: u32 = 0;

/** Room for the host to write into. */
export function logmill_alloc(size: i32): i32 {
  if (<usize>size > inputRoom) {
    if (input != 0) heap.free(input);
    inputRoom = <usize>size + (<usize>size >> 1) + 64;
    input = heap.alloc(inputRoom);
  }
  return <i32>input;
}

/** Writes a line to the pipeline's log; levels are 0 to 3, from debug to error. */
export function log(level: i32, message: string): void {
  const text = String.UTF8.encode(message);
  host_log(level, changetype<usize>(text), text.byteLength);
}

/** Ends a call: what AssemblyScript calls when an assertion fails. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log(3, (message ? message : "aborted") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  unreachable();
}

/** The message at hand: where its parts lie. */
export class Message {
  index: u32 = 0;
  timestamp: i64 = 0;
  key: usize = 0;
  keyLength: u32 = 0;
  value: usize = 0;
  valueLength: u32 = 0;
  headers: usize = 0;
  headersEnd: usize = 0;
}

const message = new Message();

/** Makes room for so many more bytes of the result. */
function reserve(bytes: usize): void {
  if (outputEnd + bytes <= output + outputRoom) return;
  const used = outputEnd - output;
  outputRoom = (used + bytes) * 2 + 1024;
  const larger = heap.alloc(outputRoom);
  if (output != 0) {
    memory.copy(larger, output, used);
    heap.free(output);
  }
  output = larger;
  outputEnd = larger + used;
}

function put<T>(value: T): void {
  store<T>(outputEnd, value);
  outputEnd += sizeof<T>();
}

/** Adds bytes to the result as they are. */
export function putRaw(from: usize, length: usize): void {
  reserve(length);
  memory.copy(outputEnd, from, length);
  outputEnd += length;
}

/** Puts out a record like this message with a value of so many bytes; gives the place to write them to. */
export function emit(like: Message, toOutput: u16, valueLength: u32): usize {
  const headers = like.headersEnd - like.headers;
  const keyBytes: usize = like.keyLength == NULL ? 0 : like.keyLength;
  reserve(<usize>valueLength + headers + keyBytes + 32);
  put<u32>(like.index);
  put<u8>(0);
  put<u16>(toOutput);
  put<i64>(like.timestamp);
  put<u32>(like.keyLength);
  putRaw(like.key, keyBytes);
  put<u32>(valueLength);
  const value = outputEnd;
  outputEnd += valueLength;
  // The headers begin with their number, so they are copied as they are.
  putRaw(like.headers, headers);
  entries += 1;
  return value;
}

/** Sets the message aside. */
export function refuse(like: Message, reason: string): void {
  const text = String.UTF8.encode(reason);
  reserve(<usize>text.byteLength + 16);
  put<u32>(like.index);
  put<u8>(1);
  put<u32>(text.byteLength);
  putRaw(changetype<usize>(text), text.byteLength);
  entries += 1;
}

function result(): i64 {
  return ((<i64>output) << 32) | <i64>(outputEnd - output);
}

/** Begins a result that is text: of `logmill_outputs`, or of an error. */
export function beginText(isError: bool): void {
  outputEnd = output;
  reserve(64);
  put<u8>(isError ? 1 : 0);
}

/** Adds text to such a result. */
export function putText(text: string): void {
  const bytes = String.UTF8.encode(text);
  putRaw(changetype<usize>(bytes), bytes.byteLength);
}

/** Ends such a result. */
export function endText(): i64 {
  return result();
}

/** Calls a function with each message of the input. */
export function each(at: usize, apply: (message: Message) => void): i64 {
  outputEnd = output;
  entries = 0;
  reserve(64);
  put<u8>(0);
  put<u32>(0);
  const count = load<u32>(at);
  at += 4;
  for (let index: u32 = 0; index < count; index++) {
    message.index = index;
    message.timestamp = load<i64>(at);
    message.keyLength = load<u32>(at + 8);
    message.key = at + 12;
    at = message.key + (message.keyLength == NULL ? 0 : message.keyLength);
    message.valueLength = load<u32>(at);
    message.value = at + 4;
    at = message.value + (message.valueLength == NULL ? 0 : message.valueLength);
    message.headers = at;
    const headers = load<u32>(at);
    at += 4;
    for (let part: u32 = 0; part < headers * 2; part++) {
      const length = load<u32>(at);
      at += 4 + (length == NULL ? 0 : length);
    }
    message.headersEnd = at;
    apply(message);
  }
  store<u32>(output + 1, entries);
  return result();
}
