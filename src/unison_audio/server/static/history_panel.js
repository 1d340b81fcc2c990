/** The list of finished requests: hear, run again, load into the form, download, copy, delete. */

import { button, byId, el, saveBlob, toast } from "./elements.js";
import { resultName } from "./copy_as.js";
import { addEntry, allEntries, clearEntries, deleteEntry } from "./history_store.js";
import { titleOf } from "./task_form.js";

const COPIES = { command: "Command", python: "Python", curl: "curl" };

export class HistoryPanel {
  /** Handlers: onShow(entry), onAgain(entry), onLoad(entry), onCopy(entry, kind). */
  constructor(handlers) {
    this.handlers = handlers;
    this.current = "";
    byId("history-clear").addEventListener("click", () => this.clear());
  }

  async refresh() {
    try {
      this.entries = await allEntries();
    } catch (error) {
      this.entries = [];
      toast(`The history cannot be read (${error.name}).`);
    }
    this.render();
  }

  async add(entry) {
    this.current = entry.id;
    this.entries.unshift(entry);
    this.render();
    try {
      await addEntry(entry);
    } catch (error) {
      toast(`The browser has no room for this result (${error.name}); download it, or delete older ones.`);
    }
  }

  show(id) {
    this.current = id;
    this.render();
  }

  async remove(entry) {
    await deleteEntry(entry.id);
    await this.refresh();
    (byId("history-list").querySelector("button") ?? byId("history-clear")).focus();
  }

  async clear() {
    if (!this.entries.length || !confirm("Delete the whole history with its sounds?")) return;
    await clearEntries();
    await this.refresh();
  }

  render() {
    byId("history-empty").hidden = this.entries.length > 0;
    byId("history-clear").hidden = !this.entries.length;
    byId("history-list").replaceChildren(...this.entries.map((entry) => this.row(entry)));
  }

  row(entry) {
    const { handlers } = this;
    const { instruction } = entry.request;
    const about = (what) => ({ "aria-label": `${what}: ${instruction.slice(0, 80)}` });
    return el("li", { "data-id": entry.id, "aria-current": entry.id === this.current ? "true" : "false" },
      el("p", { class: "entry-title" }, instruction),
      el("p", { class: "hint" }, summary(entry)),
      el("div", { class: "actions" },
        button("Show", () => handlers.onShow(entry), about("Show")),
        button("Run again", () => handlers.onAgain(entry), about("Run again")),
        button("Load", () => handlers.onLoad(entry), about("Load into the form")),
        button("Download", () => saveBlob(entry.result, resultName(entry)), about("Download")),
        el("details", {}, el("summary", {}, "Copy as"),
          el("div", { class: "actions" }, ...Object.entries(COPIES).map(([kind, label]) =>
            button(label, () => handlers.onCopy(entry, kind), about(`Copy as ${label}`))))),
        button("Delete", () => this.remove(entry), { ...about("Delete"), class: "small quiet" })));
  }
}

function summary(entry) {
  const { fields } = entry.request;
  const skipped = new Set(["input", "instruction", "events", "model", "response_format", "duration", "seed", "task", "voice"]);
  const settings = Object.entries(fields).filter(([name]) => !skipped.has(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  const when = new Date(entry.created).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
  const source = entry.source ? [`of ${entry.source.name}`] : [];
  return [titleOf(entry.task), ...source, `seed ${fields.seed ?? 0}`, ...settings, `made in ${entry.took.toFixed(1)} s`, entry.variant, when].join(" · ");
}
