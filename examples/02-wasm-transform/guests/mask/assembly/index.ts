// Masks a field of every record: `N14228` becomes `****28`.
//
//   config: { field: tailnum, keep: 2, columns: { carrier: string, tailnum: string, … } }      the columns are those put out

import { beginText, each, emit, endText, Message, putRaw, putText, refuse } from "./logmill";
import { find, findNamed, valueEnd, valueStart } from "./json";

export { logmill_alloc } from "./logmill";

const STAR: u8 = 0x2a;
const BACKSLASH: u8 = 0x5c;

let field: usize = 0;
let fieldLength: usize = 0;
let keep: usize = 0;

function wrong(message: string): i64 {
  beginText(true);
  putText("config: " + message);
  return endText();
}

export function logmill_outputs(config: i32, length: i32): i64 {
  const start = <usize>config, end = start + length;
  if (!findNamed(start, end, "field") || load<u8>(valueStart) != 0x22) return wrong("`field`, a text, is missing");
  fieldLength = valueEnd - valueStart - 2;
  field = heap.alloc(fieldLength);
  memory.copy(field, valueStart + 1, fieldLength);
  keep = 0;
  if (findNamed(start, end, "keep")) {
    keep = <usize>I32.parseInt(String.UTF8.decodeUnsafe(valueStart, valueEnd - valueStart));
  }
  if (!findNamed(start, end, "columns") || load<u8>(valueStart) != 0x7b) return wrong("`columns`, names and types, is missing");
  beginText(false);
  putText('[{"name": "masked", "json": ');
  putRaw(valueStart, valueEnd - valueStart);
  putText("}]");
  return endText();
}

function mask(message: Message): void {
  if (message.valueLength == 0xffffffff) return refuse(message, "there is no value");
  const end = message.value + message.valueLength;
  const found = find(message.value, end, field, fieldLength);
  const copy = emit(message, 0, message.valueLength);
  memory.copy(copy, message.value, message.valueLength);
  // What is no text, null above all, is left as it is.
  if (!found || load<u8>(valueStart) != 0x22) return;
  const first = valueStart + 1 - message.value, last = valueEnd - 1 - message.value;
  let kept = keep;
  // An end that is cut off an escape or a letter of several bytes would not be JSON any more: nothing is kept of such texts.
  for (let at = first; at < last; at++) {
    const byte = load<u8>(copy + at);
    if (byte == BACKSLASH || byte >= 0x80) kept = 0;
  }
  if (last - first > kept) memory.fill(copy + first, STAR, last - first - kept);
}

export function logmill_transform(input: i32, length: i32): i64 {
  return each(<usize>input, mask);
}
