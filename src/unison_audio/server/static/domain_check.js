/** What the variant cannot do, said before the button is pressed. */

import { callJson } from "./api.js";
import { byId, el } from "./elements.js";

const PAUSE_MS = 250;

export class DomainCheck {
  constructor() {
    this.number = 0;
    this.last = null;
  }

  /** Show an instruction; `asked` is the check's body or null, `lacking` what is missing. */
  show(instruction, asked, lacking) {
    const number = ++this.number;
    byId("check").hidden = !instruction;
    const body = JSON.stringify(asked);
    if (!asked || body !== this.last?.body) this.render(instruction, null, lacking);
    else this.render(instruction, this.last.found, lacking);
    clearTimeout(this.timer);
    if (!asked || body === this.last?.body) return;
    this.timer = setTimeout(async () => {
      try {
        const found = await this.ask(asked);
        if (number === this.number) this.render(instruction, found, lacking);
      } catch {
        // The state of the server is shown at the top, and the request itself will say what is wrong.
      }
    }, PAUSE_MS);
  }

  /** The server's answer about an instruction; the last one is kept. */
  async ask(asked) {
    const body = JSON.stringify(asked);
    if (this.last?.body === body) return this.last.found;
    const found = await callJson("/v1/audio/check", { method: "POST", json: asked });
    this.last = { body, found };
    return found;
  }

  render(instruction, found, lacking) {
    const unknown = [...(found?.sounds ?? []), ...(found?.words ?? [])];
    byId("preview").replaceChildren(...marked(instruction, unknown));
    const notes = found ? [found.error, found.message, ...found.notes.map(sentence)] : [];
    byId("check-list").replaceChildren(...notes.filter(Boolean).map((note) => el("li", {}, note)));
    byId("check").dataset.checked = String(Boolean(found));
    byId("run").textContent = found?.message && !lacking ? "Generate anyway" : "Generate";
  }
}

const sentence = (note) => `${note[0].toUpperCase()}${note.slice(1)}${note.endsWith(".") ? "" : "."}`;

/** The text as nodes, unknown words and sounds in <mark>. */
function marked(text, unknown) {
  if (!unknown.length) return [text];
  const escaped = unknown.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("'", "['’]"));
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join("|")})(?![\\p{L}\\p{N}])`, "giu");
  return text.split(pattern).map((part, index) => (index % 2 ? el("mark", {}, part) : part));
}
