/** Stored voices: the list, keeping a new one, deleting. */

import { call, callJson } from "./api.js";
import { button, byId, el, seconds, toast } from "./elements.js";

export class VoicesPanel {
  /** `onChange(voices)` gets the stored voices; `source()` is the recording that is open. */
  constructor({ onChange, source }) {
    Object.assign(this, { onChange, source, voices: [] });
    byId("voice-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.keep();
    });
    byId("voice-from-source").addEventListener("change", (event) => {
      byId("voice-file").disabled = event.target.checked;
    });
  }

  async refresh() {
    const { data } = await callJson("/v1/audio/voices");
    this.voices = data.filter((voice) => voice.type === "audio_sample");
    byId("voices-empty").hidden = this.voices.length > 0;
    byId("voice-list").replaceChildren(...this.voices.map((voice) => el("li", {},
      el("span", {}, voice.name),
      el("span", { class: "hint" }, `${seconds(voice.seconds)} s`),
      button("Delete", () => this.remove(voice), { "aria-label": `Delete the voice ${voice.name}` }))));
    this.onChange(this.voices);
  }

  async keep() {
    const form = new FormData();
    const file = byId("voice-from-source").checked ? this.source() : fileOf(byId("voice-file"));
    if (!file) return this.say("Choose a recording, or open one as the source and tick the box.");
    form.append("name", byId("voice-name").value);
    form.append("ref_text", byId("voice-text").value);
    form.append("consent", byId("voice-consent").value);
    form.append("audio_sample", file.blob, file.name);
    byId("voice-save").disabled = true;
    try {
      const answer = await call("/v1/audio/voices", { method: "POST", form });
      const notes = JSON.parse(answer.headers.get("X-Unison-Warnings") ?? "[]");
      this.say("");
      byId("voice-form").reset();
      byId("voice-file").disabled = false;
      byId("voice-new").open = false;
      toast(["The voice is kept.", ...notes].join(" "));
      await this.refresh();
    } catch (error) {
      this.say(error.message);
    } finally {
      byId("voice-save").disabled = false;
    }
  }

  async remove(voice) {
    if (!confirm(`Delete the voice "${voice.name}" from the server?`)) return;
    try {
      await call(`/v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" });
      toast("The voice is deleted.");
      await this.refresh();
    } catch (error) {
      toast(error.message);
    }
  }

  say(problem) {
    byId("voice-problem").hidden = !problem;
    byId("voice-problem").textContent = problem;
  }
}

function fileOf(input) {
  const [file] = input.files;
  return file && { blob: file, name: file.name };
}
