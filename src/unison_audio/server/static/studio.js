/** The studio's start: its panels, and what happens between them. */

import { callJson, keepKey, makeSound, readKey, ServerError } from "./api.js";
import { ComposePanel } from "./compose_panel.js";
import { asCommand, asCurl, asPython, resultName } from "./copy_as.js";
import { DomainCheck } from "./domain_check.js";
import { byId, saveBlob, toast } from "./elements.js";
import { HistoryPanel } from "./history_panel.js";
import { ListenPanel } from "./listen_panel.js";
import { buildRequest, checkOf, missing, SOURCE_NEEDED } from "./requests.js";
import { follow, ServerState } from "./server_state.js";
import { VoicesPanel } from "./voices_panel.js";

let catalog = null;
let shown = null;
let running = null;

const check = new DomainCheck();
const compose = new ComposePanel(() => showCheck());
const listen = new ListenPanel({ onChange: () => catalog && showCheck(), facts: () => catalog });
const voices = new VoicesPanel({ onChange: (found) => compose.setVoices(found), source: () => listen.source });
const past = new HistoryPanel({
  onShow: (entry) => showEntry(entry),
  onAgain: (entry) => run(entry.request, entry.source, entry.form, entry.task),
  onLoad: (entry) => loadEntry(entry),
  onCopy: (entry, kind) => copy(entry, kind),
});

const formState = () => ({ ...compose.state(), regions: listen.regions });

function showCheck() {
  const form = formState();
  const request = buildRequest(form, catalog);
  check.show(request.instruction, checkOf(form, catalog), missing(form, catalog, Boolean(listen.source), voices.voices));
}

function say(problem) {
  byId("problem").hidden = !problem;
  byId("problem").textContent = problem;
}

async function submit() {
  if (!catalog) return say("The server cannot be reached yet; wait until it is ready.");
  const form = formState();
  const lacking = missing(form, catalog, Boolean(listen.source), voices.voices);
  if (lacking) {
    say(lacking);
    if (lacking === SOURCE_NEEDED) byId("record").focus();
    else byId("task-fields").querySelector("[data-field]:placeholder-shown")?.focus();
    return;
  }
  const wrong = [...document.querySelectorAll("#request input:invalid")].find((one) => !one.closest("[hidden]"));
  if (wrong) {
    const folded = wrong.closest("details");
    if (folded) folded.open = true;
    wrong.reportValidity();
    return;
  }
  const request = buildRequest(form, catalog);
  let task = form.mode === "form" ? form.task : form.textTask;
  try {
    task ||= (await check.ask(checkOf(form, catalog))).task ?? "";
  } catch (error) {
    return say(error.message);
  }
  await run(request, request.source ? listen.source : null, form, task);
}

/** Send a request, show its result and keep it. */
async function run(request, source, form, task) {
  if (running) return;
  say("");
  running = new AbortController();
  const requestId = `studio-${crypto.randomUUID?.() ?? Date.now()}`;
  setRunning(true);
  const stop = follow(requestId, showProgress);
  let took = 0;
  try {
    const { blob, warnings } = await makeSound(request, source, { signal: running.signal, requestId });
    took = stop();
    const entry = {
      id: requestId, created: Date.now(), variant: catalog.variant.id,
      request, source, form, task, result: blob, warnings, took,
    };
    await past.add(entry);
    await showEntry(entry, source === listen.source);
    byId("progress-text").textContent = `Done in ${took.toFixed(1)} s`;
  } catch (error) {
    stop();
    byId("progress-text").textContent = error.name === "AbortError" ? "Cancelled" : "";
    if (error.name !== "AbortError") say(error.message);
    if (error instanceof ServerError && error.status === 401) byId("key-dialog").showModal();
  } finally {
    running = null;
    setRunning(false);
    server.look();
  }
}

/** Show where a request stands; the bar moves once the steps of its batch are known. */
function showProgress(place, step, steps) {
  byId("progress-text").textContent = place;
  const bar = byId("progress");
  if (steps) Object.assign(bar, { max: steps, value: step });
  else bar.removeAttribute("value");
}

function setRunning(active) {
  byId("run").disabled = active;
  byId("cancel").hidden = byId("progress").hidden = !active;
  byId("request").setAttribute("aria-busy", String(active));
}

/** Put a result on the second track, with the recording that it was made of on the first. */
async function showEntry(entry, sourceIsThere = false) {
  shown = entry;
  past.show(entry.id);
  try {
    if (entry.source && !sourceIsThere) await listen.setSource(entry.source, entry.form.regions);
    await listen.setResult({ blob: entry.result, name: resultName(entry), warnings: entry.warnings });
  } catch (error) {
    toast(error.message);
  }
}

async function loadEntry(entry) {
  await showEntry(entry);
  compose.restore(entry.form);
  byId("compose").focus();
}

async function copy(entry, kind) {
  const withKey = Boolean(readKey());
  const text = {
    command: () => asCommand(entry),
    python: () => asPython(entry, location.origin, withKey),
    curl: () => asCurl(entry, location.origin, withKey),
  }[kind]();
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    // Only pages of this machine or over https may write to the clipboard.
    saveBlob(new Blob([text], { type: "text/plain" }), `${kind}.txt`);
    toast("The browser does not allow copying here; the text is saved as a file.");
  }
}

byId("request").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
byId("cancel").addEventListener("click", () => running?.abort());
byId("download").addEventListener("click", () => saveBlob(shown.result, resultName(shown)));
byId("as-source").addEventListener("click", () => listen.open(shown.result, resultName(shown)));
for (const kind of ["command", "python", "curl"]) {
  byId(`copy-${kind}`).addEventListener("click", () => copy(shown, kind));
}

const server = new ServerState(async () => {
  try {
    catalog = await callJson("/v1/audio/tasks");
    compose.setCatalog(catalog);
    await voices.refresh();
  } catch (error) {
    say(error.message);
  }
});
byId("key-open").addEventListener("click", () => {
  byId("key").value = readKey();
  byId("key-dialog").showModal();
});
byId("key-form").addEventListener("submit", () => {
  keepKey(byId("key").value.trim());
  server.look();
});
past.refresh();
