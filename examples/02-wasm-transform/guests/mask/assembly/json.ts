// Finds the fields of a JSON object in its bytes, without reading the rest.

const QUOTE: u8 = 0x22;
const BACKSLASH: u8 = 0x5c;

/** Where the value of the last field lies that was found. */
export let valueStart: usize = 0;
export let valueEnd: usize = 0;

function skipString(at: usize, end: usize): usize {
  at++;
  while (at < end) {
    const byte = load<u8>(at);
    if (byte == BACKSLASH) at++;
    else if (byte == QUOTE) return at + 1;
    at++;
  }
  return end;
}

/** The end of a value: of a string its closing quote, of an object its brace, of others the comma or brace after them. */
function skipValue(at: usize, end: usize): usize {
  let depth = 0;
  while (at < end) {
    const byte = load<u8>(at);
    if (byte == QUOTE) {
      at = skipString(at, end);
      if (depth == 0) return at;
      continue;
    }
    if (byte == 0x7b || byte == 0x5b) depth++;
    else if (byte == 0x7d || byte == 0x5d) {
      if (depth == 0) return at;
      depth--;
      if (depth == 0) return at + 1;
    } else if (byte == 0x2c && depth == 0) return at;
    at++;
  }
  return end;
}

function skipSpace(at: usize, end: usize): usize {
  while (at < end && load<u8>(at) <= 0x20) at++;
  return at;
}

/** Finds a field of an object by its name, as it is between the quotes; its value lies from `valueStart` to `valueEnd`. */
export function find(at: usize, end: usize, name: usize, nameLength: usize): bool {
  at = skipSpace(at, end);
  if (at >= end || load<u8>(at) != 0x7b) return false;
  at = skipSpace(at + 1, end);
  while (at < end && load<u8>(at) == QUOTE) {
    const nameStart = at + 1;
    at = skipString(at, end);
    const found = at - 1 - nameStart == nameLength && memory.compare(nameStart, name, nameLength) == 0;
    at = skipSpace(at, end) + 1;
    at = skipSpace(at, end);
    valueStart = at;
    at = skipValue(at, end);
    valueEnd = at;
    if (found) return true;
    at = skipSpace(skipSpace(at, end) + 1, end);
  }
  return false;
}

/** Finds a field of an object by its name. */
export function findNamed(at: usize, end: usize, name: string): bool {
  const bytes = String.UTF8.encode(name);
  return find(at, end, changetype<usize>(bytes), bytes.byteLength);
}
