/** The form of a task: one field for each placeholder of its template. */

import { el } from "./elements.js";

const TITLES = {
  tts: ["Speech", "A voice says a text of any length."],
  zero_shot_tts: ["Speech in a kept voice", "A voice of the list below says a text."],
  t2a: ["Sound", "One sound from its description."],
  t2a_mix: ["Two sounds", "Two sounds at the same time."],
  t2as: ["Speech with a sound", "A voice speaks, with a sound in the background."],
  timed: ["Timeline", "Sounds with the times when they begin and end."],
  edit_add: ["Add a sound", "Adds a sound to the source."],
  edit_remove: ["Remove a sound", "Takes a sound out of the source."],
  edit_replace: ["Replace a sound", "Takes one sound out and puts another in."],
  speech_insert: ["Add speech", "Adds a voice to the source."],
  speech_delete: ["Remove speech", "Takes the voice out of the source."],
  speech_rewrite: ["Change the words", "The voice of the source says something else."],
  denoise: ["Remove noise", "Cleans a recording of speech."],
  audio_to_speech: ["Sound to speech", "Takes a sound out and adds a voice."],
  speech_to_audio: ["Speech to sound", "Takes the voice out and adds a sound."],
};

const LABELS = {
  gender: "Voice", text: "Words", caption: "Sound", first: "First sound", last: "Second sound",
  event: "Sound", old: "Sound to remove", new: "New sound",
};

const EXAMPLES = {
  text: "good morning", caption: "rain", first: "rain", last: "a dog barking", event: "rain",
  old: "rain", new: "thunder",
};

export const titleOf = (task) => TITLES[task]?.[0] ?? task;
export const hintOf = (task) => TITLES[task]?.[1] ?? "A task that was added to this server.";
export const isEdit = (task) => Boolean(task?.needs.includes("source"));

/** Names of a template's placeholders, each once. */
export function placeholders(task) {
  const found = task.templates[0].matchAll(/\{(\w+)\}/g);
  return [...new Set([...found].map((match) => match[1].toLowerCase()))];
}

/** Whether a placeholder is spoken: it stands in quotes, or follows the tag of a given voice. */
export function isSpoken(task, name) {
  return task.templates[0].includes(`"{${name}}"`) || task.id === "zero_shot_tts";
}

/** Fill a select with the tasks, generation and edits apart. */
export function fillTasks(select, tasks, first) {
  const groups = [["Generate", tasks.filter((task) => !isEdit(task))], ["Edit the source", tasks.filter(isEdit)]];
  const lists = groups.map(([label, members]) =>
    el("optgroup", { label }, ...members.map((task) => el("option", { value: task.id }, titleOf(task.id)))));
  select.replaceChildren(...(first ? [el("option", { value: "" }, first)] : []), ...lists);
}

/** Show the fields of a task, with the values that fit from `values`. */
export function showFields(container, task, values, domain) {
  const names = task.id === "timed" || task.id === "tts" ? placeholders(task).filter((name) => name === "text") : placeholders(task);
  container.replaceChildren(...names.map((name) => fieldOf(task, name, values[name], domain)));
}

function fieldOf(task, name, value, domain) {
  const id = `field-${name}`;
  const spoken = isSpoken(task, name);
  const label = name === "new" && spoken ? "New words" : LABELS[name] ?? name;
  const shared = { id, "data-field": name, required: true };
  let input;
  if (name === "gender") {
    input = el("select", shared, el("option", { value: "female" }, "A female voice"), el("option", { value: "male" }, "A male voice"));
    input.value = value ?? "female";
  } else {
    const example = spoken ? EXAMPLES.text : EXAMPLES[name] ?? "";
    const kind = spoken && (task.id === "tts" || task.id === "zero_shot_tts") ? "textarea" : "input";
    input = el(kind, { ...shared, maxlength: 4096, placeholder: example, autocomplete: "off" });
    if (kind === "textarea") input.rows = 3;
    if (!spoken && domain) input.setAttribute("list", "known-sounds");
    input.value = value ?? "";
  }
  return el("label", { class: "field", for: id }, el("span", {}, label), input);
}

/** Name -> text of the fields that are shown. */
export function readFields(container) {
  const inputs = [...container.querySelectorAll("[data-field]")];
  return Object.fromEntries(inputs.map((input) => [input.dataset.field, input.value.trim()]));
}

/** The instruction that a task's template gives; empty fields show their names. */
export function renderTemplate(task, values) {
  return task.templates[0].replace(/\{(\w+)\}/g, (_, name) => {
    const value = (values[name.toLowerCase()] ?? "").replaceAll('"', "'");
    const shown = value || `…`;
    return name[0] === name[0].toUpperCase() ? shown[0].toUpperCase() + shown.slice(1) : shown;
  });
}
