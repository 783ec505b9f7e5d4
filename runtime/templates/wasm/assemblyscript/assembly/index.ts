// What Logmill calls. What it does is said in transform.ts; this file need not change.
import { alloc, describe, run } from "./logmill";
import { outputs, transform } from "./transform";

export function logmill_alloc(size: i32): usize {
  return alloc(size);
}

export function logmill_outputs(config: usize, length: i32): i64 {
  return describe(outputs(String.UTF8.decodeUnsafe(config, length)));
}

export function logmill_transform(input: usize, length: i32): i64 {
  return run(input, length, transform);
}
