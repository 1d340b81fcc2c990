/** The form: mode, task, fields, voice, timeline and settings, as one state that can be kept. */

import { byId, el, numberOf } from "./elements.js";
import { fillTasks, hintOf, readFields, showFields } from "./task_form.js";
import { TimelineEditor } from "./timeline_editor.js";

const SETTINGS = { seed: "seed", length: "length", steps: "steps", guidance: "guidance", candidates: "candidates" };
const WITH_LENGTH = new Set(["t2a", "t2a_mix", "t2as"]);

export class ComposePanel {
  /** `onChange()` is called at every change. */
  constructor(onChange) {
    this.onChange = () => this.catalog && onChange();
    this.values = {};
    this.voices = [];
    this.timeline = new TimelineEditor(() => this.onChange());
    byId("request").addEventListener("input", () => this.changed());
    byId("task").addEventListener("change", () => this.showTask());
    for (const mode of ["form", "text"]) byId(`mode-${mode}`).addEventListener("change", () => this.showTask());
    byId("seed-new").addEventListener("click", () => {
      byId("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      this.changed();
    });
    byId("instruction").addEventListener("keydown", submitByKey);
    byId("task-fields").addEventListener("keydown", submitByKey);
  }

  /** Take the tasks and the domain of the server. */
  setCatalog(catalog) {
    const task = this.catalog ? byId("task").value : "tts";
    this.catalog = catalog;
    fillTasks(byId("task"), catalog.data);
    fillTasks(byId("text-task"), catalog.data, "from its tags");
    byId("task").value = catalog.data.some((one) => one.id === task) ? task : catalog.data[0].id;
    byId("known-sounds").replaceChildren(...(catalog.domain?.sounds ?? []).map((value) => el("option", { value })));
    byId("length").max = byId("timeline-seconds").max = String(catalog.limits.output_seconds);
    this.showTask();
  }

  setVoices(voices) {
    this.voices = voices;
    this.showVoices();
    this.onChange();
  }

  /** The length where none is given; speech lasts as its text needs. */
  usualLength() {
    const { default_seconds: usual, speech_seconds: longest } = this.catalog.variant;
    return this.task?.id === "tts" && longest > usual ? `${usual} to ${longest}` : String(usual);
  }

  get mode() {
    return byId("mode-text").checked ? "text" : "form";
  }

  get task() {
    const id = this.mode === "text" ? byId("text-task").value : byId("task").value;
    return this.catalog?.data.find((task) => task.id === id);
  }

  state() {
    Object.assign(this.values, readFields(byId("task-fields")));
    const settings = Object.fromEntries(Object.entries(SETTINGS).map(([name, id]) => [name, numberOf(byId(id))]));
    if (byId("length-field").hidden) settings.length = undefined;
    return {
      mode: this.mode,
      task: byId("task").value,
      values: { ...this.values },
      voice: byId("voice").value,
      text: byId("instruction").value.trim(),
      textTask: byId("text-task").value,
      events: this.timeline.events.map((event) => ({ ...event })),
      timelineSeconds: this.timeline.seconds,
      settings: { ...settings, preset: byId("preset").value, format: byId("format").value },
    };
  }

  /** Put a kept state into the form. */
  restore(state) {
    byId(state.mode === "text" ? "mode-text" : "mode-form").checked = true;
    byId("task").value = state.task;
    byId("instruction").value = state.text;
    byId("text-task").value = state.textTask;
    for (const [name, id] of Object.entries(SETTINGS)) byId(id).value = state.settings[name] ?? "";
    byId("preset").value = state.settings.preset;
    byId("format").value = state.settings.format;
    byId("task-fields").replaceChildren();
    this.values = { ...state.values };
    this.showTask();
    if (state.voice) byId("voice").value = state.voice;
    this.timeline.set(state.events, state.timelineSeconds);
  }

  showTask() {
    if (!this.catalog) return;
    Object.assign(this.values, readFields(byId("task-fields")));
    const text = this.mode === "text";
    byId("length").placeholder = this.usualLength();
    byId("form-mode").hidden = text;
    byId("text-mode").hidden = !text;
    if (!text) {
      byId("task-hint").textContent = hintOf(this.task.id);
      showFields(byId("task-fields"), this.task, this.values, this.catalog.domain);
    }
    byId("timeline").hidden = text || this.task.id !== "timed";
    this.showVoices();
    this.changed();
  }

  showVoices() {
    const id = this.task?.id;
    const text = this.mode === "text";
    const chosen = byId("voice").value;
    const stored = this.voices.map((voice) => el("option", { value: voice.id }, `${voice.name} (kept)`));
    const own = text || id === "zero_shot_tts" ? [] : [el("option", { value: "female" }, "A female voice"), el("option", { value: "male" }, "A male voice")];
    byId("voice").replaceChildren(...own, ...stored);
    if ([...byId("voice").options].some((option) => option.value === chosen)) byId("voice").value = chosen;
    const spoken = text ? id === "zero_shot_tts" || /^\s*\[speech with voice\]/i.test(byId("instruction").value) : id === "tts" || id === "zero_shot_tts";
    byId("voice-field").hidden = !spoken || (!own.length && !stored.length);
  }

  changed() {
    if (!this.catalog) return;
    if (this.mode === "text") this.showVoices();
    byId("length-field").hidden = this.mode === "form" && !WITH_LENGTH.has(this.task.id);
    const { settings } = this.state();
    const given = Object.entries(settings).filter(([, value]) => value !== undefined && value !== "" && value !== "wav");
    byId("settings-summary").textContent = given.map(([name, value]) => `${name} ${value}`).join(" · ");
    this.onChange();
  }
}

/** Ctrl or Command with Enter sends the form out of a text field of several lines. */
function submitByKey(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  byId("request").requestSubmit();
}
