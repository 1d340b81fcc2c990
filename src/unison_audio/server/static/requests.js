/** What the form says becomes a request: route, fields, and the instruction that it amounts to. */

import { isEdit, placeholders, renderTemplate } from "./task_form.js";
import { seconds } from "./elements.js";

/** The state of the form is {mode, task, values, voice, text, textTask, events, timelineSeconds,
 * settings: {seed, length, preset, steps, guidance, candidates, format}, regions}. */
export function buildRequest(form, catalog) {
  const task = taskOf(form, catalog);
  if (form.mode === "text") return textRequest(form, task, catalog);
  if (task.id === "timed") return timelineRequest(form);
  if (task.id === "tts" || task.id === "zero_shot_tts") return speechRequest(form, task, catalog);
  const instruction = renderTemplate(task, form.values);
  return isEdit(task) ? editRequest(form, instruction) : generateRequest(form, instruction);
}

/** What is still missing, as a sentence; empty if nothing is. */
export function missing(form, catalog, hasSource, voices) {
  const task = taskOf(form, catalog);
  if (form.mode === "text") {
    if (!form.text) return "Type an instruction.";
    return needsSource(form, task) && !hasSource ? SOURCE_NEEDED : "";
  }
  if (task.id === "timed") {
    if (!form.events.length) return "Add an event to the timeline.";
    const empty = form.events.findIndex((event) => !event.text);
    return empty < 0 ? "" : `Describe the sound of event ${empty + 1}.`;
  }
  if (task.id === "zero_shot_tts" && !voices.length) return "Keep a voice first; the list of voices has a form for it.";
  const shown = task.id === "tts" ? ["text"] : placeholders(task);
  const empty = shown.find((name) => !form.values[name]);
  if (empty) return `Fill in the field "${empty === "text" ? "words" : empty === "caption" || empty === "event" ? "sound" : empty}".`;
  return isEdit(task) && !hasSource ? SOURCE_NEEDED : "";
}

export const SOURCE_NEEDED = "This edits a recording: open, drop or record a source.";

/** What the check of the domain is to read; null where there is nothing yet. */
export function checkOf(form, catalog) {
  const request = buildRequest(form, catalog);
  const task = taskOf(form, catalog);
  if (!request.instruction || request.instruction.includes("…")) return null;
  const named = form.mode === "text" ? form.textTask || null : null;
  const tagged = named || /^\s*\[/.test(request.instruction);
  return {
    instruction: tagged ? request.instruction : `[Audio] ${request.instruction}`,
    task: named,
    source: needsSource(form, task),
    reference: /^\s*\[speech with voice\]/i.test(request.instruction) || task?.id === "zero_shot_tts",
  };
}

export function needsSource(form, task) {
  if (form.mode === "form" || form.textTask) return isEdit(task);
  return /^\s*\[\s*edit/i.test(form.text);
}

function taskOf(form, catalog) {
  const id = form.mode === "text" ? form.textTask : form.task;
  return catalog.data.find((task) => task.id === id);
}

function textRequest(form, task, catalog) {
  if (needsSource(form, task)) return editRequest(form, form.text, form.textTask);
  const request = generateRequest(form, form.text);
  if (form.textTask) request.fields.task = form.textTask;
  if (task?.id === "zero_shot_tts" || /^\s*\[speech with voice\]/i.test(form.text)) request.fields.voice = form.voice;
  return request;
}

function generateRequest(form, instruction) {
  const fields = { input: instruction, ...settingsOf(form) };
  if (form.settings.length !== undefined) fields.audio_length = form.settings.length;
  return { path: "/v1/audio/generate", kind: "json", fields, instruction, source: false };
}

function speechRequest(form, task, catalog) {
  const stored = !["female", "male"].includes(form.voice);
  const fields = {
    model: catalog.variant.id,
    input: form.values.text ?? "",
    voice: stored ? { id: form.voice } : form.voice,
    ...settingsOf(form),
  };
  const instruction = stored
    ? `[Speech with voice] ${form.values.text || "…"}`
    : renderTemplate(task, { ...form.values, gender: form.voice });
  return { path: "/v1/audio/speech", kind: "json", fields, instruction, source: false };
}

function timelineRequest(form) {
  const events = form.events.map(({ start, end, text }) => ({ start, end, text }));
  const sentences = events.map((event) =>
    `From ${seconds(event.start)}s to ${seconds(event.end)}s, ${event.text || "…"}.`);
  const fields = { events, duration: form.timelineSeconds, ...settingsOf(form) };
  const instruction = events.length ? `[Audio] ${sentences.join(" ")}` : "";
  return { path: "/v1/audio/timeline", kind: "json", fields, instruction, source: false };
}

function editRequest(form, instruction, task) {
  const fields = { instruction, ...settingsOf(form) };
  if (task) fields.task = task;
  if (form.regions.length) {
    fields.regions = form.regions.map(([start, end]) => `${seconds(start)}-${seconds(end)}`).join(", ");
  }
  return { path: "/v1/audio/edits", kind: "form", fields, instruction, source: true };
}

function settingsOf({ settings }) {
  const fields = {
    seed: settings.seed ?? 0,
    response_format: settings.format,
    preset: settings.preset || undefined,
    steps: settings.steps,
    guidance_scale: settings.guidance,
    num_candidates: settings.candidates,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
