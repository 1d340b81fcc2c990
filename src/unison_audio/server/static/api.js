/** Calls of the server's routes; every failure becomes one sentence. */

const KEY = "unison-audio-key";

/** An answer that is no success, or none at all (status 0). */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function readKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Fetch a path; `json` or `form` is the body. */
export async function call(path, { method = "GET", json, form, signal, requestId } = {}) {
  const headers = {};
  if (readKey()) headers.Authorization = `Bearer ${readKey()}`;
  if (requestId) headers["X-Request-Id"] = requestId;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? form : JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The server cannot be reached; start it again, then try once more.");
  }
  if (!answer.ok) throw new ServerError(answer.status, await messageOf(answer));
  return answer;
}

export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/** Run a request for sound; returns the sound and what the server says about it. */
export async function makeSound(request, source, { signal, requestId }) {
  const options = { method: "POST", signal, requestId };
  if (request.kind === "json") options.json = request.fields;
  else options.form = formOf(request.fields, source);
  const answer = await call(request.path, options);
  const warnings = JSON.parse(answer.headers.get("X-Unison-Warnings") ?? "[]");
  try {
    return { blob: await answer.blob(), warnings };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The answer broke off before its end; try again.");
  }
}

function formOf(fields, source) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
  form.append("audio", source.blob, source.name);
  return form;
}

async function messageOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The server answered ${answer.status} ${answer.statusText}.`;
  }
}
