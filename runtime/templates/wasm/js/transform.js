// What this guest does: it puts `*` for every digit of a text, and counts them.
const decoder = new TextDecoder();
const encoder = new TextEncoder();

const text = (bytes) => decoder.decode(bytes);
const json = (value) => encoder.encode(JSON.stringify(value));

/** Of what is thrown, only texts reach Logmill: without this it could not tell what went wrong. */
const told = (call) => (argument) => {
  try {
    return call(argument);
  } catch (error) {
    throw error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
};

let mask = "*";

export const describe = {
  /** The outputs. The first goes by the operator's own name, the others by `operator.name`. */
  outputs: told((config) => {
    mask = JSON.parse(config)?.mask ?? "*";
    const columns = { author: "string", text: "string", masked: "int32" };
    const val = Object.entries(columns).map(([name, dataType]) => ({ name, dataType }));
    return [{ name: "masked", content: { tag: "json", val } }, { name: "rejects", content: { tag: "text" } }];
  }),
};

export const record = {
  /** Called for every record: returns as many as it likes, or throws, which sets the record aside. */
  transform: told((message) => {
    const row = JSON.parse(text(message.value));
    if (!row.text) {
      return [{ output: "rejects", message: { ...message, value: encoder.encode(`${row.author} says nothing`) } }];
    }
    let masked = 0;
    row.text = row.text.replace(/[0-9]/g, () => (masked++, mask));
    return [{ message: { ...message, value: json({ ...row, masked }) } }];
  }),
};
