// What this guest does: it puts `*` for every digit of a text.
import { emit, fail, Message, Output } from "./logmill";

/** The outputs. The first goes by the operator's own name, the others by `operator.name`. */
export function outputs(config: string): Output[] {
  return [Output.text("masked"), Output.text("unchanged")];
}

/** Called for every record: emit as many as you like, or say why there is none. */
export function transform(message: Message): void {
  const text = message.text();
  if (text.length == 0) return fail("the text is empty");
  let masked = "";
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    masked += c >= 48 && c <= 57 ? "*" : text.charAt(i);
  }
  // The second argument is the number of the output.
  if (masked == text) emit(message, 1);
  else emit(message.withText(masked));
}
