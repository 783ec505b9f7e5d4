// Makes build/{{name}}.wasm: a component with the guest and an engine that runs it.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize(await readFile("transform.js", "utf8"), {
  witPath: "wit",
  worldName: "transform",
  // A guest has no files, no network and no environment; its clock is `now` of the host.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
await mkdir("build", { recursive: true });
await writeFile("build/{{name}}.wasm", component);
console.log(`build/{{name}}.wasm: ${(component.byteLength / 1e6).toFixed(1)} MB`);
